"""The registry: which metrics a workload type has, and the one loop that applies them.

What belongs here: the table of the built-in metrics, in the order of their columns. What does not: definitions (a module a
family), and how other packages bring their own (`installed`).
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.metrics import answered, bfcl, nemo, strict, structured, text, valid_calls
from flywheel_assets.core.metrics.installed import load_installed
from flywheel_assets.core.metrics.metric import BuiltIn, Metric, MetricError, Scorer
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, WorkloadType

# What a report is summed up by, and the first gate where none is configured.
MAIN_METRIC: Mapping[WorkloadType, str] = {
    WorkloadType.TOOL_CALLING: "function_name_and_args",
    WorkloadType.STRUCTURED: "field_f1",
    WorkloadType.GENERIC: "f1",
}
# What an errored row is scored as, to learn whether the metric applies to it at all.
_NOTHING_SAID = Answer(content=None)


def _built_in(kind: WorkloadType, functions: dict[str, Scorer]) -> tuple[BuiltIn, ...]:
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
            "args_precision": strict.args_precision,
            "args_recall": strict.args_recall,
            "valid_call": valid_calls.valid_call,
            "answered": answered.answered,
            "f1": text.turn_f1,
            "exact_match": text.turn_exact_match,
            "json_match": structured.json_match,
        },
    ),
    *_built_in(
        WorkloadType.STRUCTURED,
        {
            "json_valid": structured.json_valid,
            "schema_valid": structured.schema_valid,
            "exact_match": structured.exact_match,
            "field_precision": structured.field_precision,
            "field_recall": structured.field_recall,
            "field_f1": structured.field_f1,
        },
    ),
    *_built_in(
        WorkloadType.GENERIC,
        {
            "f1": text.f1,
            "exact_match": text.exact_match,
            "rouge_l": text.rouge_l,
            "json_match": structured.json_match,
        },
    ),
)


@cache
def _installed() -> tuple[Metric, ...]:
    return load_installed({(metric.name, kind) for metric in BUILT_IN for kind in metric.applies_to})


def metrics_for(workload_type: WorkloadType) -> tuple[Metric, ...]:
    """The metrics of a workload type: the built-in ones in the order of the columns, then installed ones by name."""
    return tuple(metric for metric in (*BUILT_IN, *_installed()) if workload_type in metric.applies_to)


def metric_names(workload_type: WorkloadType) -> tuple[str, ...]:
    """The names of `metrics_for`."""
    return tuple(metric.name for metric in metrics_for(workload_type))


def score_rows(
    workload_type: WorkloadType,
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    *,
    only: Collection[str] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Every metric of the workload type over every row, or those named in `only`.

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
        if only is None or metric.name in only
    }


def _score(metric: Metric, row: EvalRow, answer: Answer | None) -> float:
    try:
        score = metric.score(row, _NOTHING_SAID if answer is None else answer)
    except Exception as error:
        raise MetricError(
            f"metric '{metric.name}', row '{row.row_id}': it raised {type(error).__name__}: {error}. A metric must give a "
            "score for every answer, however odd; 0 for one that it cannot read."
        ) from error
    if score is None:
        return np.nan
    # Nearly every score is a float, and asking that first takes a tenth of the time.
    if (type(score) is not float and not isinstance(score, numbers.Real)) or not 0.0 <= score <= 1.0:
        raise MetricError(
            f"metric '{metric.name}', row '{row.row_id}': {score!r} is not a number in 0..1 (None means: does not apply)."
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
