"""Beside NeMo's own evaluator: are the scores the same, and how much faster are ours.

What belongs here: running both on the same rows, comparing every score, and the known kinds of difference (docs/metrics.md
lists them for people). What does not: the rows (`nemo_answers`) and NeMo's environment (`oracles`).
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.figure import figure
from benchmarks.nemo_answers import ROWS, Calls, Pair, adversarial_pairs, real_pairs
from benchmarks.oracles.environments import run_nemo
from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType

RATIO_TARGET = 100.0
REPEATS = 5
# Theirs is 2pr / (p + r), ours 2c / (n + m): the same number, rounded elsewhere.
ROUNDING = 1e-12
# Our column, NeMo's metric and its output.
COLUMNS = (
    ("f1", "f1", "f1"),
    ("nemo_function_name", "tool_calling", "function_name_accuracy"),
    ("nemo_function_name_and_args", "tool_calling", "function_name_and_args_accuracy"),
)
_ENDS = "NeMo's evaluation ends with an error"


@dataclass(frozen=True)
class Difference:
    """A score that is not the same; `theirs` is an error's name where NeMo's metric raised."""

    pair: Pair
    column: str
    ours: float | None
    theirs: float | str | None


def bench_nemo() -> Iterator[dict[str, object]]:
    """The ratio of wall times on real rows, and the unexplained differences on real and adversarial ones."""
    timed = [real_pairs(seed=repeat) for repeat in range(REPEATS)]
    _score(real_pairs(count=20, seed=REPEATS))  # as NeMo's side does: imports are no part of the figure
    adversarial = adversarial_pairs()
    said = run_nemo([[_row(pair) for pair in pairs] for pairs in (*timed, adversarial)])
    scored = [_score(pairs) for pairs in timed]
    differences = [
        difference
        for pairs, (_, ours), theirs in zip(timed, scored, said["batches"], strict=False)
        for difference in _differences(pairs, ours, theirs)
    ]
    their_seconds = [sum(metric["seconds"] for metric in batch.values()) for batch in said["batches"][:REPEATS]]
    our_seconds = [seconds for seconds, _ in scored]
    every_metric = [_score(pairs, every_metric=True)[0] for pairs in (real_pairs(seed=REPEATS + n) for n in range(REPEATS))]
    ratio = round(statistics.median(their_seconds) / statistics.median(our_seconds), 1)
    equal = not differences
    peer = {
        "versions": said["versions"],
        "seconds": [round(seconds, 3) for seconds in their_seconds],
        "ours_seconds": [round(seconds, 4) for seconds in our_seconds],
        "ours_every_metric_seconds": [round(seconds, 4) for seconds in every_metric],
        "rows": ROWS,
        "scores_equal": equal,
    }
    yield figure(
        "scoring_vs_nemo_ratio", ratio, "ratio", "higher", RATIO_TARGET, ok=ratio >= RATIO_TARGET and equal, peer=peer
    )
    adverse = list(_differences(adversarial, _score(adversarial)[1], said["batches"][REPEATS]))
    explained = Counter(f"{kind} ({d.column})" for d in adverse if (kind := _explanation(d)) is not None)
    unexplained = [*differences, *(difference for difference in adverse if _explanation(difference) is None)]
    line = figure("nemo_parity_differences", len(unexplained), "scores", "lower", 0, peer=said["versions"])
    yield {
        **line,
        "rows": {"real": REPEATS * ROWS, "adversarial": len(adversarial)},
        "scores": len(COLUMNS) * (REPEATS * ROWS + len(adversarial)),
        "explained": dict(explained),
        "examples": [_shown(difference) for difference in unexplained[:5]],
    }


def _row(pair: Pair) -> dict[str, Any]:
    """A pair as NeMo's evaluator reads it: the reference parsed, the answer as a chat completion."""
    calls = [{"type": "function", "function": {"name": n, "arguments": json.loads(text)}} for n, text in pair.calls]
    made = [{"type": "function", "function": {"name": name, "arguments": text}} for name, text in pair.made]
    message = {"role": "assistant", "content": pair.said, "tool_calls": made}
    return {"text": pair.text, "said": pair.said, "calls": calls, "response": {"choices": [{"message": message}]}}


def _score(pairs: list[Pair], every_metric: bool = False) -> tuple[float, dict[str, Any]]:
    """Seconds of `score_rows` for the metrics that NeMo has too, or for all 13 of both workload types, and the scores."""
    rows, predictions = [], []
    for number, pair in enumerate(pairs):
        row_id = str(number)
        reference = Answer(pair.text, _tool_calls(pair.calls))
        rows.append(EvalRow(row_id, row_id, row_id, {"messages": []}, reference, "single"))
        predictions.append(Prediction(row_id, Answer(pair.said, _tool_calls(pair.made)), latency_ms=1.0))
    started = time.perf_counter()
    only = None if every_metric else [column for column, _, _ in COLUMNS]
    scores = score_rows(WorkloadType.TOOL_CALLING, rows, predictions, only=only)
    scores |= score_rows(WorkloadType.GENERIC, rows, predictions, only=only)
    return time.perf_counter() - started, scores


def _tool_calls(calls: Calls) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(name, arguments) for name, arguments in calls)


def _differences(pairs: list[Pair], ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Difference]:
    for column, metric, output in COLUMNS:
        for pair, score, said in zip(pairs, ours[column].tolist(), theirs[metric]["scores"][output], strict=True):
            mine = None if math.isnan(score) else score
            both = isinstance(mine, float) and isinstance(said, float)
            if not (math.isclose(mine, said, rel_tol=0, abs_tol=ROUNDING) if both else mine is said):
                yield Difference(pair, column, mine, said)


def _explanation(difference: Difference) -> str | None:
    """The kind of a known difference; None where there is none."""
    raised = difference.theirs in ("RecursionError", "ValueError")
    return _ENDS if raised and any(_python_refuses(arguments) for _, arguments in difference.pair.made) else None


def _python_refuses(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return False


def _shown(difference: Difference) -> dict[str, Any]:
    pair = difference.pair
    texts = {"text": pair.text, "said": pair.said} if difference.column == "f1" else {"calls": pair.calls, "made": pair.made}
    shown = {name: repr(value)[:300] for name, value in texts.items()}
    return {"kind": pair.kind, "column": difference.column, "ours": difference.ours, "theirs": difference.theirs, **shown}


if __name__ == "__main__":
    for figures in bench_nemo():
        print(json.dumps(figures))
