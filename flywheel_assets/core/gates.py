"""Gates: the conditions a candidate must meet, judged row by row against the reference.

What belongs here: which gates a workload has, whether the evidence is sound, and what the test of each gate says of each
arm. What does not: the verdict over all of it (`core.decisions`) and the tests (`core.statistics`).

Every gate is a paired one-sided non-inferiority test. All gates of an arm must pass (intersection-union, no correction);
arms are corrected for by Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.core.statistics import PairedTest, holm, paired_test

# Below this many independent units neither the normal approximation nor the cluster bootstrap can be trusted.
MIN_CLUSTERS = 30

_DEFAULT_MARGIN = 0.05
_DEFAULT_GATES: Mapping[WorkloadType, tuple[str, ...]] = {
    WorkloadType.TOOL_CALLING: ("function_name_and_args", "no_call"),
    WorkloadType.GENERIC: ("f1",),
}


class InvalidEvidence(Exception):
    """The comparison cannot carry any verdict; the message says why and what to do."""


class InvalidGate(ValueError):
    """A configured gate cannot be judged; the message names it and what is accepted."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Not worse than the reference by `margin` or more on `metric`."""

    metric: str
    margin: float


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One gate of one arm: both scores (0..1) over the gate's rows, and the paired test."""

    gate: Gate
    score: float
    reference_score: float
    test: PairedTest
    enough_clusters: bool

    @property
    def p_value(self) -> float:
        """Of "worse by the margin or more"; 1 where there are too few clusters to ask."""
        return self.test.p_non_inferior if self.enough_clusters else 1.0


@dataclass(frozen=True, slots=True)
class ArmFinding:
    """All gates of one arm. `p_adjusted` is Holm's, over arms; `is_worse`: shown to be worse than a margin accepts."""

    arm: Arm
    gates: tuple[GateFinding, ...]
    p_adjusted: float
    passes: bool
    is_worse: bool

    @property
    def distance(self) -> float:
        """How far the weakest gate's lower bound lies above its margin; negative below."""
        return min(found.test.low + found.gate.margin for found in self.gates)


def gates_of_type(workload_type: WorkloadType) -> tuple[Gate, ...]:
    """The gates of a workload type where none are configured, margin 0.05 each.

    tool_calling: `function_name_and_args` and `no_call`, which judge different rows; generic: `f1`.
    """
    return tuple(Gate(metric, _DEFAULT_MARGIN) for metric in _DEFAULT_GATES[workload_type])


def default_gates(comparison: Comparison) -> tuple[Gate, ...]:
    """`gates_of_type`, as far as the eval set has rows they apply to."""
    return tuple(gate for gate in gates_of_type(comparison.workload_type) if rows_of(comparison, gate.metric).any())


def checked_gates(comparison: Comparison, gates: Sequence[tuple[str, float]]) -> tuple[Gate, ...]:
    """The configured gates, or the default ones. InvalidGate and InvalidEvidence as in `core.decisions.decide`."""
    chosen = tuple(Gate(metric, margin) for metric, margin in gates) or default_gates(comparison)
    if not chosen:
        raise InvalidEvidence(f"workload '{comparison.workload}': the eval set has no row that a gate applies to.")
    seen: set[str] = set()
    for gate in chosen:
        where = f"workload '{comparison.workload}', gate '{gate.metric}'"
        if gate.metric not in comparison.reference:
            known = ", ".join(comparison.reference)
            raise InvalidGate(f"{where}: no such metric here. Metrics of {comparison.workload_type} workloads: {known}.")
        if gate.metric in seen:
            raise InvalidGate(f"{where}: named twice in decision.gates. Keep the one with the margin you mean.")
        if not 0 < gate.margin < 1:
            raise InvalidGate(f"{where}: the margin is {gate.margin}; it must lie between 0 and 1.")
        if not rows_of(comparison, gate.metric).any():
            raise InvalidEvidence(
                f"{where}: it applies to no row of the eval set. Take the gate out, or ingest such records."
            )
        seen.add(gate.metric)
    return chosen


def check_evidence(comparison: Comparison, gates: Sequence[Gate], max_error_share: float) -> None:
    """Raise InvalidEvidence where no verdict could be sound, whatever the scores are."""
    where = f"workload '{comparison.workload}'"
    if not comparison.evaluated:
        holes = "; ".join(f"{arm.label}: {arm.state}, {arm.reason}" for arm in comparison.holes) or "there are no candidates"
        raise InvalidEvidence(f"{where}: no variant was evaluated ({holes}). Mend that and run the workload again.")
    for arm in comparison.evaluated:
        if arm.row_ids != comparison.row_ids:
            odd = len(set(arm.row_ids) ^ set(comparison.row_ids))
            raise InvalidEvidence(
                f"{where}: {arm.label} was asked other rows than the eval set {comparison.dataset_version} holds "
                f"({odd} differ). Evaluate it again on this dataset version."
            )
        share = float(arm.errored.mean())
        if share > max_error_share:
            raise InvalidEvidence(
                f"{where}: {int(arm.errored.sum())} of {len(arm.row_ids)} rows of {arm.label} errored ({share:.1%}; "
                f"{max_error_share:.1%} is accepted). Look at the endpoint, and evaluate again."
            )
        lacking = [gate.metric for gate in gates if gate.metric not in arm.scores]
        if lacking:
            raise InvalidEvidence(f"{where}: {arm.label} has no scores for {', '.join(lacking)}. Evaluate it again.")


def judge_arms(
    comparison: Comparison, gates: Sequence[Gate], *, alpha: float, min_clusters: int, seed: int
) -> list[ArmFinding]:
    """Every evaluated arm against every gate, corrected over arms."""
    judged = [
        (arm, tuple(_judge(comparison, arm, gate, alpha, min_clusters, seed) for gate in gates))
        for arm in comparison.evaluated
    ]
    adjusted = holm([max(found.p_value for found in gate_findings) for _, gate_findings in judged])
    return [
        ArmFinding(
            arm=arm,
            gates=found,
            p_adjusted=p_adjusted,
            passes=p_adjusted <= alpha,
            # Worse on *one* gate is enough, so several gates share the error rate.
            is_worse=any(gate.enough_clusters and gate.test.p_inferior <= alpha / len(gates) for gate in found),
        )
        for (arm, found), p_adjusted in zip(judged, adjusted, strict=True)
    ]


def _judge(comparison: Comparison, arm: Arm, gate: Gate, alpha: float, min_clusters: int, seed: int) -> GateFinding:
    rows = rows_of(comparison, gate.metric)
    reference = comparison.reference[gate.metric][rows]
    # A metric may drop an answer it cannot read (NeMo's does). For a gate that answer is wrong, or unreadable would pay.
    scores = np.nan_to_num(arm.scores[gate.metric][rows], nan=0.0)
    clusters = np.array(comparison.clusters, dtype=object)[rows]
    test = paired_test(scores, reference, clusters, margin=gate.margin, alpha=alpha, seed=seed)
    return GateFinding(gate, float(scores.mean()), float(reference.mean()), test, test.clusters >= min_clusters)


def rows_of(comparison: Comparison, metric: str) -> NDArray[np.bool_]:
    """The rows a metric applies to, which the reference tells (a mask over the eval set)."""
    return ~np.isnan(comparison.reference[metric])
