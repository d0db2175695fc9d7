"""Judge columns: which ones a workload has, the rows they apply to, and what the reference is worth in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.rows import EvalRow, WorkloadType


class Rubric(StrEnum):
    """One question to a judge; its value is the column of `predictions.parquet`."""

    TOOL_CALL = "judge_tool_call"
    SIMILARITY = "judge_similarity"
    PAIRWISE = "judge_pairwise"


JUDGE_COLUMNS: tuple[str, ...] = tuple(rubric.value for rubric in Rubric)
# Against itself the reference neither wins nor loses; in the other columns it is what an answer is held against.
_REFERENCE = {Rubric.TOOL_CALL: 1.0, Rubric.SIMILARITY: 1.0, Rubric.PAIRWISE: 0.5}


def columns_of(workload_type: WorkloadType, *, tool_calls: bool, pairwise: bool) -> tuple[Rubric, ...]:
    """The judge columns of a workload that has a judge, in their order.

    `tool_calls`: tool calls are judged, not only measured (`evaluation.tool_eval_type: judge`).
    """
    if workload_type is WorkloadType.TOOL_CALLING:
        return (Rubric.TOOL_CALL,) if tool_calls else ()
    return (Rubric.SIMILARITY, Rubric.PAIRWISE) if pairwise else (Rubric.SIMILARITY,)


def labelled_rubric(columns: Iterable[Rubric]) -> Rubric | None:
    """The column that labelled answers can calibrate: they say right or wrong, not which of two is better."""
    return next((column for column in columns if column is not Rubric.PAIRWISE), None)


def applies(column: Rubric, row: EvalRow) -> bool:
    """Whether a column applies to a row. Where no call is expected `no_call` says all there is to say of tool calls."""
    return row.reference.calls_tools if column is Rubric.TOOL_CALL else True


def reference_scores(columns: Iterable[str], rows: Sequence[EvalRow]) -> dict[str, NDArray[np.float64]]:
    """What the reference has in each judge column, by row: 1, pairwise 0.5, NaN where the column does not apply."""
    return {
        column.value: np.array([_REFERENCE[column] if applies(column, row) else np.nan for row in rows], dtype=np.float64)
        for column in map(Rubric, columns)
    }
