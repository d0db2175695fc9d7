"""The registry: which metrics a workload type has, and the one loop that applies them.

A user's own metric is an object or a class without arguments under the entry-point group `flywheel_assets.metrics`; it
needs only what `Metric` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.metrics import bfcl, nemo, strict, text
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, WorkloadType

ENTRY_POINT_GROUP = "flywheel_assets.metrics"

# What an errored row is scored as, to learn whether the metric applies to it at all.
_NOTHING_SAID = Answer(content=None)


class MetricError(ValueError):
    """A metric cannot be used, or gave something that is no score; the message names the metric and the row."""


@runtime_checkable
class Metric(Protocol):
    """One column of `predictions.parquet`."""

    @property
    def name(self) -> str:
        """The column's name; distinct from every other metric's."""

    @property
    def applies_to(self) -> Collection[WorkloadType]:
        """The workload types it is computed for."""

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        """0..1, or None where the metric does not apply.

        Whether it applies must depend on `row` alone: an answer that is no good scores 0, it does not leave the mean.
        """


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A metric of this package: a name and a function."""

    name: str
    applies_to: frozenset[WorkloadType]
    function: Callable[[EvalRow, Answer], float | None]

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        """The function's value."""
        return self.function(row, answer)


def _built_in(kind: WorkloadType, functions: dict[str, Callable[[EvalRow, Answer], float | None]]) -> tuple[BuiltIn, ...]:
    return tuple(BuiltIn(name, frozenset({kind}), function) for name, function in functions.items())


BUILT_IN: tuple[BuiltIn, ...] = (
    *_built_in(
        WorkloadType.TOOL_CALLING,
        {
            "function_name": strict.function_name,
            "function_name_and_args": strict.function_name_and_args,
            "no_call": strict.no_call,
            "args_f1": strict.args_f1,
            "nemo_function_name": nemo.function_name,
            "nemo_function_name_and_args": nemo.function_name_and_args,
            "bfcl_ast": bfcl.ast_match,
        },
    ),
    *_built_in(WorkloadType.GENERIC, {"f1": text.f1, "exact_match": text.exact_match}),
)


@cache
def _installed() -> tuple[Metric, ...]:
    """The metrics other packages bring, in the order of their names."""
    taken = {metric.name for metric in BUILT_IN}
    found: list[Metric] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        loaded = point.load()
        metric = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(metric, Metric):
            raise MetricError(
                f"entry point '{point.name}' ({point.value}) of group {ENTRY_POINT_GROUP} is not a metric: it needs "
                "`name`, `applies_to` and `score(row, answer)`. Mend it, or uninstall the package that brings it."
            )
        if metric.name in taken:
            raise MetricError(
                f"entry point '{point.name}' ({point.value}) brings a metric named '{metric.name}', which exists already. "
                "Give it a name of its own."
            )
        taken.add(metric.name)
        found.append(metric)
    return tuple(found)


def metrics_for(workload_type: WorkloadType) -> tuple[Metric, ...]:
    """The metrics of a workload type: the built-in ones in the order of the columns, then installed ones by name."""
    return tuple(metric for metric in (*BUILT_IN, *_installed()) if workload_type in metric.applies_to)


def metric_names(workload_type: WorkloadType) -> tuple[str, ...]:
    """The names of `metrics_for`."""
    return tuple(metric.name for metric in metrics_for(workload_type))


def score_rows(
    workload_type: WorkloadType, rows: Sequence[EvalRow], predictions: Sequence[Prediction]
) -> dict[str, NDArray[np.float64]]:
    """Every metric of the workload type over every row.

    Returns `{metric: array of len(rows)}`, float64 in 0..1, NaN where the metric does not apply, in the order of `rows`;
    predictions are found by their row id. Raises MetricError when a row has no prediction or two, when a prediction
    belongs to no row, or when a metric returns something that is no score.
    """
    answers = [prediction.answer for prediction in _paired(rows, predictions)]
    return {
        metric.name: np.array(
            [_score(metric, row, answer) for row, answer in zip(rows, answers, strict=True)], dtype=np.float64
        )
        for metric in metrics_for(workload_type)
    }


def _score(metric: Metric, row: EvalRow, answer: Answer | None) -> float:
    score = metric.score(row, _NOTHING_SAID if answer is None else answer)
    if score is None:
        return np.nan
    if not 0.0 <= score <= 1.0:
        raise MetricError(
            f"metric '{metric.name}', row '{row.row_id}': {score!r} is not in 0..1 (None means: does not apply)."
        )
    return 0.0 if answer is None else float(score)


def _paired(rows: Sequence[EvalRow], predictions: Sequence[Prediction]) -> list[Prediction]:
    """The prediction of each row, in the order of the rows."""
    by_row = {prediction.row_id: prediction for prediction in predictions}
    wanted = {row.row_id for row in rows}
    if len(by_row) != len(predictions) or len(wanted) != len(rows):
        raise MetricError(f"{len(rows)} rows and {len(predictions)} predictions: a row id occurs twice. Evaluate again.")
    if wanted != by_row.keys():
        odd = min(wanted ^ by_row.keys())
        lack = "has no prediction" if odd in wanted else "is predicted but is not among the rows"
        raise MetricError(
            f"rows and predictions do not belong together: row '{odd}' {lack} ({len(rows)} rows, {len(predictions)} "
            "predictions). Evaluate this dataset version again."
        )
    return [by_row[row.row_id] for row in rows]
