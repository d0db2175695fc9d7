"""Unread: which share of the traffic is text whose content no gate looks at.

What belongs here: the share, and the line that says it. What does not: gates (`core.gates`) and the verdict
(`core.decisions`). A model may say anything there and be promoted all the same, so whoever reads a decision must know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.gates import Gate, GateKind, rows_of
from flywheel_assets.core.judge import Rubric
from flywheel_assets.core.rows import WorkloadType

# These say that there is an answer, or that it has the right form, and nothing of what it says. Any other column that
# applies to a text reads it, those of other packages included.
_BLIND = frozenset(
    {"no_call", "answered", "nemo_function_name", "nemo_function_name_and_args", "json_valid", "schema_valid"}
)
# A gain over the untrained model, or a budget, says nothing of how the text compares with the teacher's.
_READING = (GateKind.NON_INFERIOR, GateKind.FLOOR, GateKind.ZERO_TOLERANCE)
_JUDGED = (Rubric.SIMILARITY.value, Rubric.PAIRWISE.value)
_METRIC = {WorkloadType.TOOL_CALLING: "f1", WorkloadType.STRUCTURED: "exact_match", WorkloadType.GENERIC: "f1"}


def unread_share(comparison: Comparison, gates: Sequence[Gate]) -> float:
    """The share of the eval rows (0..1) that are answered in words which no gate reads. `gates` have been checked."""
    unread = _unread(comparison, gates)
    return float(unread.mean()) if unread.size else 0.0


def unread_remark(comparison: Comparison, gates: Sequence[Gate]) -> str | None:
    """The line for decision, report and status; None where every text is read."""
    unread = _unread(comparison, gates)
    if not unread.any():
        return None
    readers = [*_JUDGED, _METRIC[comparison.workload_type]]
    able = [f"`{name}`" for name in readers if name in comparison.reference and _applies(comparison, name, unread)]
    opening = f"{_percent(float(unread.mean()))} of turns are text that no"
    if any(name in comparison.reference for name in _JUDGED):
        return f"{opening} gate read: add a gate on {' or '.join(able)}."
    other = f", or a gate on {able[0]}" if able else f" and a gate on `{_JUDGED[0]}`"
    return f"{opening} judge or gate read: configure a judge{other}."


def _unread(comparison: Comparison, gates: Sequence[Gate]) -> NDArray[np.bool_]:
    rows = _texts(comparison)
    for gate in gates:
        if gate.kind in _READING and gate.metric not in _BLIND:
            rows &= ~rows_of(comparison, gate)
    return rows


def _texts(comparison: Comparison) -> NDArray[np.bool_]:
    """The rows that the teacher answered in words alone."""
    if comparison.workload_type is not WorkloadType.TOOL_CALLING:
        return np.ones(len(comparison.row_ids), dtype=bool)
    # Without this column nothing about texts was scored at all, as where one metric alone is compared.
    applies = comparison.reference.get(_METRIC[WorkloadType.TOOL_CALLING])
    return np.zeros(len(comparison.row_ids), dtype=bool) if applies is None else np.asarray(~np.isnan(applies))


def _applies(comparison: Comparison, metric: str, rows: NDArray[np.bool_]) -> bool:
    return not np.isnan(comparison.reference[metric][rows]).all()


def _percent(share: float) -> str:
    """A share that is never rounded to nothing or to all."""
    return "Less than 1%" if share < 0.01 else "More than 99%" if 0.99 < share < 1.0 else f"{share:.0%}"
