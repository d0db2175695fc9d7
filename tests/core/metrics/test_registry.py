"""Which columns a workload has, what an error costs, and how a stranger's metric gets in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flywheel_assets.core.comparison import compare
from flywheel_assets.core.metrics import MetricError, installed, metric_names, metrics_for, registry, score_rows
from flywheel_assets.core.predictions import predictions_schema
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType
from tests import plugin_package

CALL = Answer(None, (ToolCall("f", '{"a": 1}'),))
SILENCE = Answer("no tool fits")
GENERIC = WorkloadType.GENERIC
SHOUTING = """
class Shouting:
    name = "shouting"
    applies_to = ("generic",)
    definition = "1 if the answer is in capitals."
    def score(self, row, answer):
        return float((answer.content or "").isupper())
"""

Install = Callable[..., None]


def row(row_id: str, reference: Answer) -> EvalRow:
    return EvalRow(row_id, f"t-{row_id}", f"c-{row_id}", {"messages": []}, reference, "single")


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of another's metrics: its code, and the names in it that are entry points."""
    made = 0

    def install(code: str, *names: str) -> None:
        nonlocal made
        made += 1
        module = f"their_metrics_{made}_{tmp_path.name.replace('-', '_')}"
        points = {name.lower(): f"{module}:{name}" for name in names}
        folder = plugin_package.install(tmp_path / module, module, code, {installed.ENTRY_POINT_GROUP: points})
        monkeypatch.syspath_prepend(folder)
        forget()

    def forget() -> None:
        installed.entry_points.cache_clear()
        registry._installed.cache_clear()

    yield install
    monkeypatch.undo()
    forget()


def test_the_columns_are_the_published_ones_in_their_order() -> None:
    assert metric_names(WorkloadType.TOOL_CALLING) == (
        "function_name",
        "function_name_and_args",
        "no_call",
        "args_f1",
        "nemo_function_name",
        "nemo_function_name_and_args",
        "bfcl_ast",
        "args_precision",
        "args_recall",
        "valid_call",
        "answered",
        "f1",
        "exact_match",
        "json_match",
    )
    assert metric_names(WorkloadType.STRUCTURED) == (
        "json_valid",
        "schema_valid",
        "exact_match",
        "field_precision",
        "field_recall",
        "field_f1",
    )
    assert metric_names(WorkloadType.GENERIC) == ("f1", "exact_match", "rouge_l", "json_match")


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


def test_named_metrics_are_scored_alone_and_as_among_all() -> None:
    rows, predictions = [row("1", CALL)], [Prediction("1", CALL)]
    alone = score_rows(WorkloadType.TOOL_CALLING, rows, predictions, only=["bfcl_ast", "nemo_function_name"])
    assert list(alone) == ["nemo_function_name", "bfcl_ast"]
    everything = score_rows(WorkloadType.TOOL_CALLING, rows, predictions)
    assert all(np.array_equal(scores, everything[name]) for name, scores in alone.items())


def test_no_rows_give_empty_columns() -> None:
    assert {name: column.size for name, column in score_rows(WorkloadType.GENERIC, [], []).items()} == {
        "f1": 0,
        "exact_match": 0,
        "rouge_l": 0,
        "json_match": 0,
    }


def test_every_metric_says_in_a_sentence_what_it_measures() -> None:
    for kind in WorkloadType:
        for metric in metrics_for(kind):
            assert metric.definition.endswith(".") and "\n" not in metric.definition, metric.name


def test_an_installed_metric_becomes_a_column(bring: Install) -> None:
    bring(SHOUTING, "Shouting")
    scores = score_rows(GENERIC, [row("a", SILENCE)], [Prediction("a", Answer("YES"))])
    assert scores["shouting"].tolist() == [1.0]
    assert metric_names(GENERIC)[-1] == "shouting"
    assert "shouting" not in metric_names(WorkloadType.TOOL_CALLING)


def test_an_object_is_a_metric_like_a_class_and_none_means_that_it_does_not_apply(bring: Install) -> None:
    code = SHOUTING.replace("return float(", "return None if row.row_id == 'b' else bool(") + "\nmetric = Shouting()\n"
    bring(code, "metric")
    rows = [row("a", SILENCE), row("b", SILENCE)]
    scores = score_rows(GENERIC, rows, [Prediction("a", None, error="timeout"), Prediction("b", None, error="timeout")])
    assert scores["shouting"][0] == 0.0 and np.isnan(scores["shouting"][1])


def test_which_versions_are_installed_is_known_without_loading_them(bring: Install) -> None:
    assert installed.installed_versions() == {}
    bring("raise RuntimeError('loaded')", "Shouting")
    ((point, package),) = installed.installed_versions().items()
    assert point.startswith("shouting = their_metrics_") and point.endswith(":Shouting")
    assert package.startswith("their_metrics_") and package.endswith(" 1.0")


@pytest.mark.parametrize(
    ("returned", "shown"), [("7.0", r"7\.0"), ("-0.1", r"-0\.1"), ("float('nan')", "nan"), ("'1'", "'1'"), ("[1.0]", r"\[1")]
)
def test_a_value_that_is_no_score_is_named_with_its_metric_and_row(bring: Install, returned: str, shown: str) -> None:
    bring(SHOUTING.replace('return float((answer.content or "").isupper())', f"return {returned}"), "Shouting")
    with pytest.raises(MetricError, match=rf"metric 'shouting', row 'a': {shown}.* is not a number in 0\.\.1"):
        score_rows(GENERIC, [row("a", SILENCE)], [Prediction("a", SILENCE)])


def test_a_metric_that_raises_is_named_with_its_row_and_fails_the_evaluation(bring: Install) -> None:
    bring(SHOUTING.replace('(answer.content or "")', "answer.content"), "Shouting")
    with pytest.raises(MetricError, match="metric 'shouting', row 'a': it raised AttributeError"):
        score_rows(GENERIC, [row("a", SILENCE)], [Prediction("a", None, error="timeout")])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('name = "shouting"', 'name = "f1"', "brings a metric named 'f1', which generic workloads have already"),
        ('name = "shouting"', 'name = "latency_ms"', "the name 'latency_ms' is one of a column"),
        ('name = "shouting"', 'name = "f1_low"', "the name 'f1_low' is one of a column"),
        ('name = "shouting"', 'name = "judge_mine"', "the name 'judge_mine' begins with judge_"),
        ('name = "shouting"', 'name = "Shout!"', "its name 'Shout!' must be lower-case"),
        ('name = "shouting"', "name = None", "its name None must be"),
        ('("generic",)', '("generic", "chat")', "names 'chat'; the workload types are tool_calling, structured, generic"),
        ('("generic",)', '"generic"', "must be a list of workload types"),
        ('("generic",)', "()", "must be a list of workload types"),
        ('("generic",)', "None", "must be a list of workload types"),
        ('definition = "1 if the answer is in capitals."', 'definition = " "', "`definition` must say"),
        ('definition = "1 if the answer is in capitals."', "", "it needs `name`, `applies_to`, `definition` and"),
        ("def score(self, row, answer):", "score = 1\n    def other(self, row, answer):", "it needs `name`"),
        ("class Shouting:", "import no_such_module\nclass Shouting:", "cannot be loaded .*no_such_module"),
        ("    name =", "    def __init__(self, more):\n        pass\n    name =", "cannot be loaded .*TypeError"),
    ],
)
def test_a_faulty_metric_is_refused_by_its_entry_point_and_package(
    bring: Install, before: str, after: str, why: str
) -> None:
    assert before in SHOUTING
    bring(SHOUTING.replace(before, after), "Shouting")
    with pytest.raises(MetricError, match=rf"entry point 'shouting' .*of package 'their_metrics_\w+' 1\.0 .*{why}"):
        metric_names(GENERIC)


def test_two_packages_may_not_bring_the_same_name(bring: Install) -> None:
    bring(SHOUTING, "Shouting")
    bring(SHOUTING, "Shouting")
    with pytest.raises(MetricError, match="'shouting', which generic workloads have already"):
        metric_names(GENERIC)


def test_no_metric_can_take_the_name_of_another_column() -> None:
    columns = set(predictions_schema(GENERIC, ()).names)
    leaderboard = set(compare("w", GENERIC, [row("a", SILENCE)], [], dataset_version="v").table()[0])
    own = {f"{name}{ending}" for name in metric_names(GENERIC) for ending in ("", "_low", "_high", "_n")}
    assert (columns | leaderboard) - own == installed.RESERVED_NAMES
