"""Which columns a workload has, what an error costs, and how a stranger's metric gets in."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from flywheel_assets.core.metrics import MetricError, metric_names, registry, score_rows
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType

CALL = Answer(None, (ToolCall("f", '{"a": 1}'),))
SILENCE = Answer("no tool fits")


def row(row_id: str, reference: Answer) -> EvalRow:
    return EvalRow(row_id, f"t-{row_id}", f"c-{row_id}", {"messages": []}, reference, "single")


class Shouting:
    """A metric of somebody else's package."""

    name = "shouting"
    applies_to = (WorkloadType.GENERIC,)

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        return float((answer.content or "").isupper())


class OffTheScale(Shouting):
    name = "off_the_scale"

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        return 7.0


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def _install(*targets: str) -> None:
        points = [EntryPoint(f"p{i}", target, registry.ENTRY_POINT_GROUP) for i, target in enumerate(targets)]
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value])
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._installed.cache_clear()

    yield _install
    monkeypatch.undo()
    registry._installed.cache_clear()


def test_the_columns_are_the_published_ones_in_their_order() -> None:
    assert metric_names(WorkloadType.TOOL_CALLING) == (
        "function_name",
        "function_name_and_args",
        "no_call",
        "args_f1",
        "nemo_function_name",
        "nemo_function_name_and_args",
        "bfcl_ast",
    )
    assert metric_names(WorkloadType.GENERIC) == ("f1", "exact_match")


def test_an_errored_row_counts_zero_where_the_metric_applies_and_nowhere_else() -> None:
    rows = [row("call", CALL), row("silent", SILENCE)]
    errors = [Prediction(r.row_id, None, error="timeout") for r in rows]
    scores = score_rows(WorkloadType.TOOL_CALLING, rows, errors)
    assert scores["function_name"][0] == scores["function_name_and_args"][0] == scores["bfcl_ast"][0] == 0.0
    assert np.isnan(scores["function_name"][1]) and np.isnan(scores["no_call"][0])
    # Silence would have been right here; an error is no silence.
    assert scores["no_call"][1] == scores["nemo_function_name"][1] == 0.0


def test_scores_follow_the_rows_whatever_the_order_of_the_predictions() -> None:
    rows = [row("a", CALL), row("b", CALL)]
    scores = score_rows(WorkloadType.TOOL_CALLING, rows, [Prediction("b", CALL), Prediction("a", SILENCE)])
    assert scores["function_name"].tolist() == [0.0, 1.0]
    assert scores["function_name"].dtype == np.float64


@pytest.mark.parametrize(
    "predictions",
    [
        [Prediction("a", CALL)],
        [Prediction("a", CALL), Prediction("b", CALL), Prediction("z", CALL)],
        [Prediction("a", CALL), Prediction("a", CALL)],
    ],
)
def test_predictions_of_other_rows_are_refused(predictions: list[Prediction]) -> None:
    with pytest.raises(MetricError, match="again"):
        score_rows(WorkloadType.TOOL_CALLING, [row("a", CALL), row("b", CALL)], predictions)


def test_no_rows_give_empty_columns() -> None:
    assert {name: column.size for name, column in score_rows(WorkloadType.GENERIC, [], []).items()} == {
        "f1": 0,
        "exact_match": 0,
    }


def test_an_installed_metric_becomes_a_column(install: object) -> None:
    install("Shouting")  # type: ignore[operator]
    scores = score_rows(WorkloadType.GENERIC, [row("a", SILENCE)], [Prediction("a", Answer("YES"))])
    assert scores["shouting"].tolist() == [1.0]
    assert "shouting" not in metric_names(WorkloadType.TOOL_CALLING)


def test_a_metric_whose_value_is_no_score_is_named_with_its_row(install: object) -> None:
    install("OffTheScale")  # type: ignore[operator]
    with pytest.raises(MetricError, match=r"'off_the_scale', row 'a': 7\.0"):
        score_rows(WorkloadType.GENERIC, [row("a", SILENCE)], [Prediction("a", SILENCE)])


def test_two_metrics_of_one_name_and_things_that_are_no_metric_are_refused(install: object) -> None:
    install("Shouting", "Shouting")  # type: ignore[operator]
    with pytest.raises(MetricError, match="exists already"):
        metric_names(WorkloadType.GENERIC)
    install("CALL")  # type: ignore[operator]
    with pytest.raises(MetricError, match="is not a metric"):
        metric_names(WorkloadType.GENERIC)
