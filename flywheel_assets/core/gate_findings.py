"""Gate findings: what the evidence says of each gate of each arm.

What belongs here: judging arms against gates. What does not: which gates there are (`core.gates`), the tests
(`core.statistics`), and the verdict over all of it (`core.decisions`).

A tested gate is a paired one-sided test: against the reference, the teacher asked once more or the incumbent
(non-inferior), a perfect score (floor), or the candidate's own base variant (improvement). All gates of an arm must pass
(intersection-union, no correction); arms are corrected for by Holm. Budgets and zero tolerance are plain observations: met
or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.gates import LATENCY, TESTED, Against, Gate, GateKind, InvalidEvidence, rows_of
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.core.statistics import PairedTest, holm, paired_test

# Candidate, variant and adapter (its data version; None for variants without one).
Model = tuple[str, Variant, str | None]

# Below this many conversations, counted at what they are worth where some are long (Kish's effective number), neither the
# normal approximation nor the cluster bootstrap can be trusted.
MIN_CLUSTERS = 30


@dataclass(frozen=True, slots=True)
class TestedGate:
    """One tested gate of one arm: its score and what it is tested against (both 0..1) over the gate's rows."""

    # Not a test case, whatever its name looks like to pytest.
    __test__ = False

    gate: Gate
    score: float
    reference_score: float
    test: PairedTest
    enough_clusters: bool

    @property
    def p_value(self) -> float:
        """Of "the gate is not met"; 1 where there are too few clusters to ask."""
        return self.test.p_non_inferior if self.enough_clusters else 1.0

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return {
            **self.gate.to_json(),
            "margin": self.gate.margin,
            "score": self.score,
            "reference_score": self.reference_score,
            "enough_clusters": self.enough_clusters,
            **asdict(self.test),
        }


@dataclass(frozen=True, slots=True)
class ObservedGate:
    """One gate that is met or not, without a test: a budget's value, or the share of rows right (0..1) of `rows` rows.

    `at_most`: for zero tolerance, the share of failures (0..1) that no failure in so many rows still allows, at level alpha.
    """

    gate: Gate
    value: float
    met: bool
    rows: int
    at_most: float | None = None

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return {**asdict(self), "gate": None, **self.gate.to_json()} | {"observed": True}


@dataclass(frozen=True, slots=True)
class ArmFinding:
    """All gates of one arm. `p_adjusted` is Holm's, over arms; `is_worse`: shown to miss a gate."""

    arm: Arm
    gates: tuple[TestedGate, ...]
    observed: tuple[ObservedGate, ...]
    p_adjusted: float
    passes: bool
    is_worse: bool

    @property
    def distance(self) -> float:
        """How far the weakest tested gate's lower bound lies above its margin; negative below."""
        return min(found.test.low + found.gate.margin for found in self.gates)


def judge_arms(
    comparison: Comparison,
    gates: Sequence[Gate],
    *,
    alpha: float,
    min_clusters: int,
    seed: int,
    incumbent: Model | None = None,
) -> list[ArmFinding]:
    """Every evaluated arm against every gate, corrected over arms. `incumbent` is the model that serves now.

    Raises InvalidEvidence where a budget was never measured.
    """
    judged = []
    for arm in comparison.evaluated:
        tested = tuple(
            judge_gate(comparison, arm, gate, alpha=alpha, min_clusters=min_clusters, seed=seed, incumbent=incumbent)
            for gate in gates
            # The base variant has nothing to improve on; whether it is good enough the other gates tell.
            if gate.kind in TESTED and not (gate.kind is GateKind.IMPROVEMENT and arm.variant is Variant.BASE)
        )
        observed = tuple(_observe(comparison, arm, gate, alpha) for gate in gates if gate.kind not in TESTED)
        judged.append((arm, tested, observed, all(found.met for found in observed)))
    adjusted = holm([max(found.p_value for found in tested) if met else 1.0 for _, tested, _, met in judged])
    return [
        ArmFinding(
            arm=arm,
            gates=tested,
            observed=observed,
            p_adjusted=p_adjusted,
            passes=met and p_adjusted <= alpha,
            # Missing *one* gate is enough, so several gates share the error rate.
            is_worse=not met
            or any(found.enough_clusters and found.test.p_inferior <= alpha / len(tested) for found in tested),
        )
        for (arm, tested, observed, met), p_adjusted in zip(judged, adjusted, strict=True)
    ]


def arm_of(comparison: Comparison, model: Model | None) -> Arm | None:
    """The evaluated arm that is exactly this model; None where another adapter was trained since."""
    return next((arm for arm in comparison.evaluated if (arm.candidate, arm.variant, arm.adapter_version) == model), None)


def judge_gate(
    comparison: Comparison,
    arm: Arm,
    gate: Gate,
    *,
    alpha: float,
    min_clusters: int,
    seed: int,
    incumbent: Model | None,
) -> TestedGate:
    """One tested gate of one arm, its bounds at level `alpha`; nothing is corrected for."""
    rows = rows_of(comparison, gate)
    scores = _scores(arm, gate, rows)
    against = _against(comparison, arm, gate, rows, incumbent)
    clusters = np.array(comparison.clusters, dtype=object)[rows]
    test = paired_test(
        scores,
        against,
        clusters,
        margin=gate.margin,
        alpha=alpha,
        seed=seed,
        by_construction=_is_right_by_construction(gate),
    )
    return TestedGate(gate, float(scores.mean()), float(against.mean()), test, test.clusters_effective >= min_clusters)


def _is_right_by_construction(gate: Gate) -> bool:
    """Whether what a gate is held against can be right on every row for another reason than luck on these rows: a perfect
    score, and the logged answers that rows are examined against."""
    return gate.kind is GateKind.FLOOR or (gate.kind is GateKind.NON_INFERIOR and gate.against is Against.REFERENCE)


def _against(
    comparison: Comparison, arm: Arm, gate: Gate, rows: NDArray[np.bool_], incumbent: Model | None
) -> NDArray[np.float64]:
    if gate.kind is GateKind.FLOOR:
        return np.ones(int(rows.sum()))
    if gate.kind is GateKind.IMPROVEMENT:
        base = next(a for a in comparison.evaluated if a.candidate == arm.candidate and a.variant is Variant.BASE)
        return _scores(base, gate, rows)
    if gate.against is Against.TEACHER:
        return _counted(comparison.teacher[gate.metric][rows])
    if gate.against is Against.INCUMBENT and (served := arm_of(comparison, incumbent)) is not None:
        return _scores(served, gate, rows)
    return _counted(comparison.reference[gate.metric][rows])


def _scores(arm: Arm, gate: Gate, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    return _counted(arm.scores[gate.metric][rows])


def _counted(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # A metric may drop an answer it cannot read (NeMo's does). For a gate that answer is wrong, or unreadable would pay.
    return np.nan_to_num(scores, nan=0.0)


def _observe(comparison: Comparison, arm: Arm, gate: Gate, alpha: float) -> ObservedGate:
    if gate.kind is GateKind.ZERO_TOLERANCE:
        scores = _scores(arm, gate, rows_of(comparison, gate))
        met = bool(np.all(scores == 1.0))
        # The exact bound: with a larger share of failures, none would be seen in so many rows less often than alpha.
        at_most = 1.0 - alpha ** (1.0 / scores.size) if met else None
        return ObservedGate(gate, float(np.mean(scores == 1.0)), met, int(scores.size), at_most)
    report = arm.report
    value = None if report is None else report.latency_ms["p95"] if gate.metric == LATENCY else report.cost_per_1k_usd
    if value is None:
        raise InvalidEvidence(
            f"workload '{comparison.workload}', gate '{gate.metric}': {arm.label} has no such figure. "
            + ("Evaluate it again." if gate.metric == LATENCY else "Give the candidate a price in flywheel.yaml.")
        )
    return ObservedGate(gate, float(value), value <= gate.limit, len(arm.row_ids))
