"""The comparison report: a comparison and its decision in Markdown, for a person who did not build the system.

What belongs here: sentences, tables and a few real rows. Every number comes from the comparison or the decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.datasets.gold import Gold
from flywheel_assets.core.decisions import Decision, Verdict
from flywheel_assets.core.judge import JUDGE_COLUMNS
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import SUITES, Score, ScoredPredictions
from flywheel_assets.core.rows import Answer, EvalRow, WorkloadType

_LONGEST = 400
_HEADLINE = {
    Verdict.PROMOTE: "promote",
    Verdict.KEEP: "keep the teacher",
    Verdict.INCONCLUSIVE: "inconclusive",
}
_GOLD: Mapping[str, str] = {
    Gold.CORRECTION: "people who corrected the teacher",
    Gold.ACCEPTED_ANSWERS: "accepted answers in the records",
    Gold.FEEDBACK: "feedback that confirmed the teacher",
    Gold.TEACHER: "the teacher alone",
}
# A few hundred rows decide little; below this the report says so in words.
_FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class Example:
    """One real row: what was asked, what was right, what was said (or the error), and its score (0..1)."""

    row_id: str
    asked: str
    expected: str
    answered: str
    score: float


def leading_arm(comparison: Comparison, metric: str) -> Arm | None:
    """The evaluated arm with the best mean on a metric; the first one listed where several are equal."""
    scored = [arm for arm in comparison.evaluated if arm.report and metric in arm.report.scores]
    return max(scored, key=lambda arm: _mean(arm, metric), default=None)


def losing_examples(
    rows: Sequence[EvalRow], evaluation: ScoredPredictions, metric: str, *, limit: int = 5
) -> tuple[Example, ...]:
    """The rows an arm does worst on, worst first, then in the order of the file; never one it got wholly right."""
    by_id = {row.row_id: row for row in rows}
    column = evaluation.scores[metric]
    lost = [int(i) for i in np.argsort(column, kind="stable") if column[i] < 1.0][:limit]
    return tuple(
        Example(
            row_id=prediction.row_id,
            asked=_last_question(by_id[prediction.row_id].request),
            expected=_say(reference),
            answered=_say(prediction.answer) if prediction.answer else f"(error) {prediction.error}",
            score=float(column[i]),
        )
        for i in lost
        for prediction, reference in ((evaluation.predictions[i], evaluation.references[i]),)
    )


def to_markdown(comparison: Comparison, decision: Decision | None = None, examples: Sequence[Example] = ()) -> str:
    """The whole report. `examples` are those of the leading arm, from `losing_examples`."""
    text = "\n".join(_lines(comparison, decision, examples)).rstrip() + "\n"
    # A model can write half a surrogate pair, which no file can hold.
    return text.encode("utf-8", "replace").decode()


def _lines(comparison: Comparison, decision: Decision | None, examples: Sequence[Example]) -> Iterator[str]:
    yield f"# {comparison.workload}: who may answer it"
    yield ""
    if decision:
        winner = f" {decision.candidate} ({decision.variant})" if decision.candidate else ""
        more = f", about {decision.needed_rows} more eval rows needed" if decision.needed_rows else ""
        yield f"**Verdict: {_HEADLINE[decision.verdict]}{winner}{more}.**"
        yield ""
        yield from (f"- {reason}" for reason in decision.reasons)
        yield ""
    yield "## Leaderboard"
    yield ""
    yield from _leaderboard(comparison)
    yield ""
    yield from _by_suite(comparison)
    if comparison.holes:
        yield "## Not measured"
        yield ""
        yield from (f"- {arm.label}: {arm.state}. {arm.reason or 'No reason was recorded.'}" for arm in comparison.holes)
        yield ""
    if examples:
        yield "## Where the best variant still loses"
        yield ""
        for example in examples:
            yield f"**{_inline(example.asked)}** (row `{example.row_id}`, score {example.score:.2f})"
            yield f"- expected: `{_code(example.expected)}`"
            yield f"- answered: `{_code(example.answered)}`"
            yield ""
    yield "## How to read this"
    yield ""
    yield from (f"- {caveat}" for caveat in _caveats(comparison))


def _leaderboard(comparison: Comparison) -> Iterator[str]:
    metrics = [metric for metric in comparison.reference if metric in comparison.reference_scores]
    header = ["candidate", "variant", *metrics, "p50 ms", "p95 ms", "rows", "errors"]
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    teacher = ["(reference)", "teacher", *(_by_construction(comparison.reference_scores[metric]) for metric in metrics)]
    yield "| " + " | ".join([*teacher, "", "", str(len(comparison.row_ids)), ""]) + " |"
    if comparison.ceiling:
        again = ["(reference)", "teacher, asked once more", *(_cell(comparison.ceiling.get(metric)) for metric in metrics)]
        yield "| " + " | ".join([*again, "", "", str(len(comparison.row_ids)), ""]) + " |"
    for arm in comparison.arms:
        yield "| " + " | ".join(_arm_cells(arm, metrics)) + " |"


def _by_suite(comparison: Comparison) -> Iterator[str]:
    """The main metric of every evaluated arm by label: what the mean over all rows hides."""
    metric = MAIN_METRIC[comparison.workload_type]
    arms = [(arm, arm.report) for arm in comparison.evaluated if arm.report is not None]
    labelled = [
        (suite, label)
        for suite in SUITES
        for label in sorted({label for _, report in arms for label in report.suites.get(suite, {})})
    ]
    if not labelled:
        return
    header = ["suite", "label", *(_inline(arm.label) for arm, _ in arms)]
    yield f"## `{metric}` by suite"
    yield ""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for suite, label in labelled:
        found = (report.suites.get(suite, {}).get(label) for _, report in arms)
        cells = [_cell(suite_report.scores.get(metric)) if suite_report else "" for suite_report in found]
        yield "| " + " | ".join([suite, _inline(label), *cells]) + " |"
    yield ""


def _arm_cells(arm: Arm, metrics: Sequence[str]) -> list[str]:
    name = _inline(arm.candidate) + (f" (derived from {_inline(arm.derived_from)})" if arm.derived_from else "")
    if arm.report is None:
        return [name, arm.variant.value, *([arm.state] + [""] * (len(metrics) - 1) if metrics else []), "", "", "", ""]
    report = arm.report
    latency = [f"{value:.0f}" if (value := report.latency_ms[key]) is not None else "" for key in ("p50", "p95")]
    scores = [_cell(report.scores.get(metric)) for metric in metrics]
    return [name, arm.variant.value, *scores, *latency, str(report.n), str(report.errors)]


def _caveats(comparison: Comparison) -> Iterator[str]:
    yield f"The reference is {comparison.reference_note}. A high score means agreement with it, not that it is right."
    if comparison.ceiling:
        yield "Asked once more, the teacher agrees with what counts as right that often: the ceiling for everybody else."
    said = ", ".join(f"{count} by {_GOLD[gold]}" for gold, count in comparison.gold.items())
    if comparison.gold.keys() - {Gold.TEACHER}:
        yield f"What is right was said {said}."
    yield "Each cell is a mean, its 95% interval and, in brackets, the rows the metric applies to; an errored row counts 0."
    yield "Intervals of two variants may overlap although one is better: the decision compares them row by row."
    if comparison.workload_type is WorkloadType.TOOL_CALLING:
        yield "The `nemo_*` columns repeat NeMo Evaluator's definitions with their faults; the gates use the strict ones."
    if any(metric in JUDGE_COLUMNS for metric in comparison.reference):
        yield "The `judge_*` columns are verdicts of a model, which errs too: docs/judge.md says how they are corrected."
    clusters = len(set(comparison.clusters))
    if clusters < _FEW_ROWS:
        yield f"Only {clusters} independent conversations were asked: differences of several points can be chance."
    if clusters < len(comparison.row_ids):
        yield f"The {len(comparison.row_ids)} rows come from {clusters} conversations; intervals are wider for it."
    if comparison.sources_note:
        yield comparison.sources_note
    yield from comparison.notes


def _cell(score: Score | None) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] ({score.n})" if score else ""


def _by_construction(score: Score) -> str:
    # An interval would suggest that the reference was measured.
    return f"{score.value:.3f} ({score.n})"


def _mean(arm: Arm, metric: str) -> float:
    return arm.report.scores[metric].value if arm.report else 0.0


def _last_question(request: Mapping[str, Any]) -> str:
    """The last user message of a request, as text."""
    for message in reversed(request.get("messages") or ()):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return " ".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))
    return "(no user message)"


def _say(answer: Answer) -> str:
    calls = ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    text = json.dumps(answer.content, ensure_ascii=False) if answer.content else ""
    return " ".join(part for part in (calls, text) if part) or "(nothing)"


def _inline(text: str) -> str:
    """Text that cannot break a Markdown line or table."""
    flat = " ".join(text.split())
    cut = flat if len(flat) <= _LONGEST else flat[:_LONGEST] + " ..."
    for special in ("\\", "|", "*", "_", "`", "<"):
        cut = cut.replace(special, "\\" + special)
    return cut


def _code(text: str) -> str:
    flat = " ".join(text.split()).replace("`", "'")
    return flat if len(flat) <= _LONGEST else flat[:_LONGEST] + " ..."
