"""Decisions: may a small model replace the big one, said with its evidence.

What belongs here: the verdict, the winner, the rows still needed and the sentences that explain it. What does not: the gates
(`core.gates`), the tests (`core.statistics`), when a decision expires and who approves it.

A difference that is not significant is not evidence of equality: too few rows are `inconclusive`, never a pass and never a
fail.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from flywheel_assets.core.clusters import RESAMPLES
from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.gates import (
    MIN_CLUSTERS,
    ArmFinding,
    GateFinding,
    InvalidEvidence,
    InvalidGate,
    check_evidence,
    checked_gates,
    default_gates,
    judge_arms,
    rows_of,
)
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.core.sample_size import rows_to_settle

__all__ = ["Decision", "InvalidEvidence", "InvalidGate", "Verdict", "decide", "default_gates"]


class Verdict(StrEnum):
    """What a decision says; `keep` keeps the incumbent."""

    PROMOTE = "promote"
    KEEP = "keep"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its evidence. `candidate` and `variant` name the winner of a promotion, and are None otherwise.

    `needed_rows` is set exactly when the verdict is inconclusive: about how many more eval rows would settle it.
    """

    verdict: Verdict
    candidate: str | None
    variant: Variant | None
    needed_rows: int | None
    reasons: tuple[str, ...]
    evidence: Json = field(default_factory=dict)
    approved: bool = False

    def to_status(self) -> Json:
        """The form `flywheel status --json` shows."""
        return {
            "verdict": self.verdict.value,
            "candidate": self.candidate,
            "variant": None if self.variant is None else self.variant.value,
            "needed_rows": self.needed_rows,
            "reasons": list(self.reasons),
            "approved": self.approved,
        }

    def to_json(self) -> Json:
        """`to_status` with the evidence; `from_json` is its inverse."""
        return {**self.to_status(), "evidence": self.evidence}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decision:
        """The decision `to_json` gave."""
        return cls(
            verdict=Verdict(value["verdict"]),
            candidate=value["candidate"],
            variant=None if value["variant"] is None else Variant(value["variant"]),
            needed_rows=value["needed_rows"],
            reasons=tuple(value["reasons"]),
            evidence=value["evidence"],
            approved=value["approved"],
        )

    def data_version(self) -> str:
        """Hash of the whole decision (32 hex digits); equal evidence gives equal decisions."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]


def decide(
    comparison: Comparison,
    gates: Sequence[tuple[str, float]] = (),
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    max_error_share: float = 0.05,
    min_clusters: int = MIN_CLUSTERS,
    seed: int = 0,
) -> Decision:
    """The verdict on a workload.

    `gates` are (metric, margin), all of which an arm must pass; empty means `default_gates`. `alpha` is the chance, over
    all arms together, to promote one that is worse than a margin accepts; `power` only sizes `needed_rows`.

    promote: an arm passes. The winner has the highest lower bound on the first gate; equal bounds: the cheaper, then the
    faster, then the simpler variant. keep: every evaluated arm is shown to be worse than a margin accepts. Otherwise
    inconclusive. Equal input gives an equal decision.

    Raises InvalidEvidence where there is nothing sound to judge (no evaluated arm, arms asked other rows than the eval set,
    more than `max_error_share` errored rows), InvalidGate for a gate that cannot be judged.
    """
    chosen = checked_gates(comparison, gates)
    check_evidence(comparison, chosen, max_error_share)
    findings = judge_arms(comparison, chosen, alpha=alpha, min_clusters=min_clusters, seed=seed)
    passing = [finding for finding in findings if finding.passes]
    evidence = _evidence(comparison, findings)
    evidence["settings"] = {
        "gates": [asdict(gate) for gate in chosen],
        "alpha": alpha,
        "power": power,
        "max_error_share": max_error_share,
        "min_clusters": min_clusters,
        "seed": seed,
        "resamples": RESAMPLES,
    }
    remarks = [comparison.sources_note] if comparison.sources_note else []
    remarks += [
        f"Not judged: {arm.label} is {arm.state}: {arm.reason or 'no reason was recorded'}" for arm in comparison.holes
    ]
    sure = f"{100 * (1 - alpha):g}% confidence"
    if passing:
        winner = min(passing, key=_preference)
        reasons = [
            f"{winner.arm.label} may replace the teacher: with {sure} it loses less than every gate accepts.",
            *(_sentence(winner.arm, found) for found in winner.gates),
        ]
        return Decision(Verdict.PROMOTE, winner.arm.candidate, winner.arm.variant, None, (*reasons, *remarks), evidence)
    if all(finding.is_worse for finding in findings):
        reasons = [f"Keep the teacher: with {sure} every evaluated variant loses more than a gate accepts."]
        reasons += [_sentence(finding.arm, _worst(finding)) for finding in findings]
        return Decision(Verdict.KEEP, None, None, None, (*reasons, *remarks), evidence)
    closest = max((finding for finding in findings if not finding.is_worse), key=lambda finding: finding.distance)
    needed, missing = _needed(comparison, closest, len(findings), alpha, power, min_clusters)
    evidence["closest"] = {"candidate": closest.arm.candidate, "variant": closest.arm.variant.value, "missing": missing}
    reasons = [
        "The rows do not settle it: no variant is shown to be good enough, "
        f"and {closest.arm.label} is not shown to be too weak.",
        *(_sentence(closest.arm, found) for found in closest.gates),
        *(f"About {rows} more rows that '{metric}' applies to would settle that gate." for metric, rows in missing.items()),
    ]
    return Decision(Verdict.INCONCLUSIVE, None, None, needed, (*reasons, *remarks), evidence)


def _preference(finding: ArmFinding) -> tuple[float, float, float, int, str]:
    """Sorts the winner first."""
    report = finding.arm.report
    cost = report.cost_per_1k_usd if report and report.cost_per_1k_usd is not None else math.inf
    latency = report.latency_ms["p50"] if report and report.latency_ms["p50"] is not None else math.inf
    simplicity = list(Variant).index(finding.arm.variant)
    return (-round(finding.gates[0].test.low, 9), cost, latency, simplicity, finding.arm.candidate)


def _worst(finding: ArmFinding) -> GateFinding:
    """The gate an arm misses by most, of those that could be judged: it is what the verdict rests on."""
    judged = [found for found in finding.gates if found.enough_clusters]
    return min(judged, key=lambda found: found.test.high + found.gate.margin)


def _needed(
    comparison: Comparison, closest: ArmFinding, arms: int, alpha: float, power: float, min_clusters: int
) -> tuple[int, dict[str, int]]:
    """More rows wanted in all, and by gate.

    Gates on the same rows share them, gates on different rows (calls, no calls) each want their own. Planned at the
    strictest level Holm may ask for.
    """
    missing: dict[str, int] = {}
    by_rows: dict[bytes, int] = {}
    for found in closest.gates:
        test = found.test
        if found.p_value * arms <= alpha:
            continue
        total = rows_to_settle(
            n=max(1, round(test.n_effective)),
            difference=test.difference,
            discordance=test.discordance,
            margin=found.gate.margin,
            alpha=alpha / arms,
            power=power,
        )
        rows_per_unit = test.n / test.n_effective
        rows_per_cluster = test.n / test.clusters
        wanted = max(
            math.ceil(total * rows_per_unit) - test.n, math.ceil((min_clusters - test.clusters) * rows_per_cluster), 1
        )
        missing[found.gate.metric] = wanted
        mask = rows_of(comparison, found.gate.metric).tobytes()
        by_rows[mask] = max(by_rows.get(mask, 0), wanted)
    return sum(by_rows.values()), missing


def _sentence(arm: Arm, found: GateFinding) -> str:
    test, gate = found.test, found.gate
    seen = (
        f"{arm.label}: {gate.metric} is {found.score:.3f} against {found.reference_score:.3f} on {test.n} rows; the "
        f"difference lies between {test.low:+.3f} and {test.high:+.3f}, and a loss of less than {gate.margin:g} is accepted"
    )
    return seen + (
        "." if found.enough_clusters else f", but {test.clusters} independent conversations are too few to judge."
    )


def _evidence(comparison: Comparison, findings: Sequence[ArmFinding]) -> Json:
    return {
        "workload": comparison.workload,
        "workload_type": comparison.workload_type.value,
        "dataset_version": comparison.dataset_version,
        "comparison": comparison.data_version(),
        "reference": comparison.reference_note,
        "rows": len(comparison.row_ids),
        "eval_sources": dict(comparison.eval_sources),
        "clusters": len(set(comparison.clusters)),
        "arms": [
            {
                "candidate": finding.arm.candidate,
                "variant": finding.arm.variant.value,
                "version": finding.arm.version,
                "adapter_version": finding.arm.adapter_version,
                "errors": int(finding.arm.errored.sum()),
                "p_adjusted": finding.p_adjusted,
                "passes": finding.passes,
                "is_worse": finding.is_worse,
                "gates": [
                    {
                        "metric": found.gate.metric,
                        "margin": found.gate.margin,
                        "score": found.score,
                        "reference_score": found.reference_score,
                        "enough_clusters": found.enough_clusters,
                        **asdict(found.test),
                    }
                    for found in finding.gates
                ],
            }
            for finding in findings
        ],
        "holes": [
            {"candidate": arm.candidate, "variant": arm.variant.value, "state": arm.state, "reason": arm.reason}
            for arm in comparison.holes
        ],
    }
