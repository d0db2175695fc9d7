"""Evidence for these tests: eval rows, answers that are right or wrong on purpose, and the comparison of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest

from flywheel_assets.core.comparison import ArmResult, Comparison, compare
from flywheel_assets.core.predictions import build_report, read_predictions, write_predictions
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, Variant, WorkloadType

TOOLS = WorkloadType.TOOL_CALLING


class Evidence:
    """Makes evaluated arms of a tool-calling workload called `router`, through the real scoring and files."""

    right = Answer(None, (ToolCall("f", '{"a": 1}'),))
    wrong = Answer(None, (ToolCall("f", '{"a": 2}'),))
    silence = Answer("no tool fits")

    def rows(self, n: int, *, silent: int = 0, clusters: int | None = None) -> list[EvalRow]:
        """`n` rows that expect a call and `silent` ones that expect none; by default each is a conversation of its own."""
        request = {"messages": [{"role": "user", "content": "What | is *it*?"}]}
        return [
            EvalRow(f"r{i}", f"t{i}", f"c{i % clusters if clusters else i}", request, reference, "single_turn")
            for i, reference in enumerate([self.right] * n + [self.silence] * silent)
        ]

    def arm(
        self,
        rows: Sequence[EvalRow],
        fails: Callable[[int], bool] = lambda i: False,
        *,
        candidate: str = "small",
        variant: Variant = Variant.CUSTOMIZED,
        errors: int = 0,
        latency_ms: float = 10.0,
        cost: float | None = None,
    ) -> ArmResult:
        """An arm that is wrong where `fails(index)` says so and errors on the last `errors` rows."""
        predictions = [
            Prediction(row.row_id, None, error="timed out")
            if index >= len(rows) - errors
            else Prediction(row.row_id, self.wrong if fails(index) else row.reference, latency_ms=latency_ms)
            for index, row in enumerate(rows)
        ]
        file = io.BytesIO()
        write_predictions(file, TOOLS, rows, predictions)
        return ArmResult(
            candidate,
            variant,
            "ok",
            report=build_report(TOOLS, rows, predictions, cost_per_1k_usd=cost),
            evaluation=read_predictions(io.BytesIO(file.getvalue())),
            version="v1",
        )

    def compare(self, rows: Sequence[EvalRow], *arms: ArmResult, notes: Sequence[str] = ()) -> Comparison:
        """The comparison of some arms on the dataset version `d1`."""
        return compare("router", TOOLS, rows, arms, dataset_version="d1", notes=notes)


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    return Evidence()
