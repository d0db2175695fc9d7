"""How fast answers are scored: 1,000 tool-call rows with every tool-calling metric, and 10,000 paired bootstraps of them."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import numpy as np

from benchmarks.figure import figure
from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType
from flywheel_assets.core.statistics import paired_test

ROWS = 1_000
TARGET_S = 0.2
BOOTSTRAP_TARGET_S = 1.0
_REPEATS = 5
_CITIES = ("New York, NY", "Paris", "São Paulo", "Kuala Lumpur")


def bench_scoring(rows: int = ROWS) -> dict[str, object]:
    """Seconds for `score_rows`, the median of five runs over different rows, so that no cache is warm."""
    taken = []
    for repeat in range(_REPEATS):
        examined, predictions = _evaluation(rows, seed=repeat)
        started = time.perf_counter()
        scores = score_rows(WorkloadType.TOOL_CALLING, examined, predictions)
        taken.append(time.perf_counter() - started)
        if not 0.5 < scores["function_name"][~(scores["no_call"] >= 0)].mean() < 1:
            raise RuntimeError("the synthetic answers are not a mix of right and wrong: the figure would mean nothing")
    value = round(sorted(taken)[_REPEATS // 2], 4)
    return figure("score_1000_tool_rows_s", value, "s", "lower", TARGET_S)


def bench_bootstrap(rows: int = ROWS) -> dict[str, object]:
    """Seconds for one paired test by 10,000 clustered bootstraps over two sides of `rows` scores, the median of five."""
    taken = []
    for repeat in range(_REPEATS):
        rng = np.random.default_rng(repeat)
        ours, theirs, clusters = rng.random(rows), rng.random(rows), rng.integers(0, rows // 2, rows)
        started = time.perf_counter()
        paired_test(ours, theirs, clusters, margin=0.05, seed=repeat, resamples=10_000)
        taken.append(time.perf_counter() - started)
    value = round(sorted(taken)[_REPEATS // 2], 4)
    return figure("bootstrap_10k_s", value, "s", "lower", BOOTSTRAP_TARGET_S)


def _evaluation(n: int, seed: int) -> tuple[list[EvalRow], list[Prediction]]:
    """Rows shaped like the Berkeley leaderboard's (two tools, one or two calls, several accepted answers), and answers of
    which about a third differ: another value, another name, broken JSON, no call."""
    rng = random.Random(seed)
    rows, predictions = [], []
    for number in range(n):
        row_id = f"{seed}-{number}"
        expected = [] if rng.random() < 0.15 else [_arguments(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        accepted = tuple({"plan_trip": {key: [value, ""] for key, value in call.items()}} for call in expected)
        reference = Answer(None, tuple(ToolCall("plan_trip", json.dumps(call)) for call in expected))
        request = {"messages": [{"role": "user", "content": row_id}], "tools": [_tool("plan_trip"), _tool("book_hotel")]}
        rows.append(EvalRow(row_id, row_id, row_id, request, reference, "single", accepted=accepted or None))
        predictions.append(Prediction(row_id, _answered(rng, expected), latency_ms=1.0))
    return rows, predictions


def _answered(rng: random.Random, expected: list[dict[str, Any]]) -> Answer:
    kind = rng.random()
    if kind < 0.1:
        return Answer("I cannot help with that.")
    name = "book_hotel" if kind < 0.2 else "plan_trip"
    texts = [json.dumps({**call, "days": 99} if kind < 0.3 else call, indent=1) for call in expected]
    return Answer(None, tuple(ToolCall(name, text[:-1] if kind > 0.97 else text) for text in texts))


def _arguments(rng: random.Random) -> dict[str, Any]:
    return {
        "city": rng.choice(_CITIES),
        "days": rng.randint(1, 10**6),
        "budget": rng.random() * 1000,
        "tags": rng.sample(["museum", "food", "park", "music"], 2),
        "options": {"class": rng.choice(["first", "second"]), "seats": rng.randint(1, 4)},
    }


def _tool(name: str) -> dict[str, Any]:
    properties = {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "budget": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "options": {"type": "object"},
    }
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


if __name__ == "__main__":
    print(json.dumps(bench_scoring()))
