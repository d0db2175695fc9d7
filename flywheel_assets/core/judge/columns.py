"""Judge columns: which ones a workload has, the rows they apply to, and what the reference is worth in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.rows import Answer, EvalRow, WorkloadType


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
    calls = (Rubric.TOOL_CALL,) if tool_calls and workload_type is WorkloadType.TOOL_CALLING else ()
    return (*calls, Rubric.SIMILARITY, *((Rubric.PAIRWISE,) if pairwise else ()))


def labelled_rubric(columns: Iterable[Rubric], expected: Answer, workload_type: WorkloadType) -> Rubric | None:
    """The column that a labelled answer can calibrate, the one that applies where `expected` is right; None: there is none.

    Labels say right or wrong, not which of two is better.
    """
    return next(
        (column for column in columns if column is not Rubric.PAIRWISE and applies(column, expected, workload_type)), None
    )


def applies(column: Rubric, reference: Answer, workload_type: WorkloadType) -> bool:
    """Whether a column applies where this is the right answer.

    In a tool-calling workload each turn is judged for what it is: calls by one rubric, text by the others. Where a teacher
    that could have called a tool said nothing at all there is nothing to agree with.
    """
    if column is Rubric.TOOL_CALL:
        return reference.calls_tools
    if workload_type is not WorkloadType.TOOL_CALLING:
        return True
    return not reference.calls_tools and bool((reference.content or "").strip())


def reference_scores(
    columns: Iterable[str], rows: Sequence[EvalRow], workload_type: WorkloadType
) -> dict[str, NDArray[np.float64]]:
    """What the reference has in each judge column, by row: 1, pairwise 0.5, NaN where the column does not apply."""
    return {
        column.value: np.array(
            [_REFERENCE[column] if applies(column, row.reference, workload_type) else np.nan for row in rows],
            dtype=np.float64,
        )
        for column in map(Rubric, columns)
    }
