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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flywheel_assets.core.clusters import RESAMPLES
from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decision_text import observed, tested
from flywheel_assets.core.gate_findings import MIN_CLUSTERS, ArmFinding, Model, arm_of, judge_arms
from flywheel_assets.core.gates import Against, Gate, InvalidEvidence, InvalidGate, check_evidence, checked_gates, rows_of
from flywheel_assets.core.looks import Due, Look, Waiting, next_look
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.core.sample_size import rows_to_settle
from flywheel_assets.core.unread import unread_remark, unread_share

__all__ = ["Decision", "InvalidEvidence", "InvalidGate", "Verdict", "decide", "incumbent_of"]


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

    def to_status(self) -> Json:
        """The form `flywheel status --json` shows."""
        return {
            "verdict": self.verdict.value,
            "candidate": self.candidate,
            "variant": None if self.variant is None else self.variant.value,
            "needed_rows": self.needed_rows,
            "reasons": list(self.reasons),
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
        )

    def data_version(self) -> str:
        """Hash of the whole decision (32 hex digits); equal evidence gives equal decisions."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]


def incumbent_of(decision: Decision) -> Model | None:
    """The model that served when this was decided, as its evidence names it; None is the teacher."""
    # Absent from decisions made before gates could be against it.
    found = decision.evidence["settings"].get("incumbent")
    return None if found is None else (found[0], Variant(found[1]), found[2])


def decide(
    comparison: Comparison,
    gates: Sequence[Gate] = (),
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    max_error_share: float = 0.05,
    min_clusters: int = MIN_CLUSTERS,
    looks: Sequence[int] = (),
    earlier: Sequence[Look] = (),
    seed: int = 0,
    incumbent: Model | None = None,
) -> Decision:
    """The verdict on a workload.

    `gates` are conditions all of which an arm must meet; empty means `core.gates.default_gates`. `alpha` is the chance, over
    all arms (and all registered looks) together, to promote one that misses a tested gate; `power` only sizes
    `needed_rows`. `looks` are the registered eval-row counts, `earlier` the looks taken so far (`core.looks`).
    `incumbent` is the model that serves now, for gates against it; None is the teacher.

    promote: an arm passes. The winner has the highest lower bound on the first tested gate; equal bounds: the cheaper, then
    the faster, then the simpler variant. keep: every evaluated arm is shown to miss a gate. Otherwise inconclusive, also
    where no registered look is reached. Between looks the last verdict stands while its winner is still the one compared.
    Equal input gives an equal decision.

    Raises InvalidEvidence where there is nothing sound to judge (no evaluated arm, arms asked other rows than the eval set,
    more than `max_error_share` errored rows), InvalidGate for a gate that cannot be judged.
    """
    chosen = checked_gates(comparison, gates)
    check_evidence(comparison, chosen, max_error_share)
    version = comparison.data_version()
    look = next_look(looks, earlier, alpha=alpha, rows=len(comparison.row_ids), comparison=version)
    level = 0.0 if isinstance(look, Waiting) else look.alpha
    # While waiting the scores are shown as they are, judged at the whole alpha; no verdict comes of it.
    findings = judge_arms(
        comparison, chosen, alpha=level or alpha, min_clusters=min_clusters, seed=seed, incumbent=incumbent
    )
    evidence = _evidence(comparison, findings, version)
    evidence["unread_share"] = unread_share(comparison, chosen)
    evidence["unread"] = unread_remark(comparison, chosen)
    evidence["settings"] = {
        "gates": [gate.to_json() for gate in chosen],
        "alpha": alpha,
        "power": power,
        "max_error_share": max_error_share,
        "min_clusters": min_clusters,
        "looks": list(looks),
        "seed": seed,
        "resamples": RESAMPLES,
        "incumbent": None if incumbent is None else list(incumbent),
    }
    if isinstance(look, Waiting):
        evidence["look"] = None
        evidence["looks_taken"] = [taken.to_json() for taken in earlier]
        verdict = _between_looks(comparison, look)
    else:
        evidence["look"] = {"number": look.number, "alpha": look.alpha}
        verdict = _verdict(comparison, findings, evidence, level, power, min_clusters)
        taken = Look(
            look.number,
            len(comparison.row_ids),
            version,
            look.alpha,
            verdict.verdict.value,
            tuple(looks),
            alpha,
            _winner_of(verdict, findings),
        )
        kept = [other for other in earlier if not taken.repeats(other)]
        evidence["looks_taken"] = [other.to_json() for other in (*kept, taken)]
    remarks = [*_on_looks(look, looks, verdict), *([comparison.sources_note] if comparison.sources_note else [])]
    remarks += _on_the_incumbent(comparison, chosen, incumbent)
    remarks += filter(None, [evidence["unread"]])
    remarks += [
        f"Not judged: {arm.label} is {arm.state}: {arm.reason or 'no reason was recorded'}" for arm in comparison.holes
    ]
    return replace(verdict, reasons=(*verdict.reasons, *remarks), evidence=evidence)


def _verdict(
    comparison: Comparison,
    findings: Sequence[ArmFinding],
    evidence: Json,
    alpha: float,
    power: float,
    min_clusters: int,
) -> Decision:
    """What the findings say at level `alpha`; notes the arm closest to passing in the evidence."""
    passing = [finding for finding in findings if finding.passes]
    sure = f"{100 * (1 - alpha):.4g}% confidence"
    if passing:
        winner = min(passing, key=_preference)
        opening = f"{winner.arm.label} may replace the teacher: with {sure} it meets every gate."
        return Decision(Verdict.PROMOTE, winner.arm.candidate, winner.arm.variant, None, (opening, *_sentences(winner)))
    if all(finding.is_worse for finding in findings):
        opening = f"Keep the teacher: with {sure} every evaluated variant misses a gate."
        return Decision(Verdict.KEEP, None, None, None, (opening, *(_worst(finding) for finding in findings)))
    closest = max((finding for finding in findings if not finding.is_worse), key=lambda finding: finding.distance)
    needed, missing = _needed(comparison, closest, len(findings), alpha, power, min_clusters)
    evidence["closest"] = {"candidate": closest.arm.candidate, "variant": closest.arm.variant.value, "missing": missing}
    reasons = (
        "The rows do not settle it: no variant is shown to be good enough, "
        f"and {closest.arm.label} is not shown to be too weak.",
        *_sentences(closest),
        *(f"About {rows} more rows that '{label}' applies to would settle that gate." for label, rows in missing.items()),
    )
    return Decision(Verdict.INCONCLUSIVE, None, None, needed, reasons)


def _between_looks(comparison: Comparison, waiting: Waiting) -> Decision:
    """What holds where no registered look is due: the last verdict, if it is about a model that is still compared."""
    rows, last = len(comparison.row_ids), waiting.last
    upcoming = (
        f"The next look is registered at {waiting.next_rows} eval rows, and there are {rows}."
        if waiting.next_rows is not None
        else "Every registered look is taken. Register further row counts in decision.looks to look again."
    )
    if last is not None and last.winner is not None:
        candidate, variant, adapter = last.winner
        if any(
            (arm.candidate, arm.variant, arm.adapter_version) == (candidate, variant, adapter)
            for arm in comparison.evaluated
        ):
            opening = f"Look {last.number}, at {last.rows} eval rows, promoted {candidate} ({variant}), and that stands."
            return Decision(Verdict.PROMOTE, candidate, Variant(variant), None, (opening, upcoming))
    opening = (
        "No registered look is reached yet."
        if last is None
        else f"Look {last.number}, at {last.rows} eval rows, said {last.verdict}."
    )
    needed = max(1, waiting.next_rows - rows) if waiting.next_rows is not None else 1
    return Decision(Verdict.INCONCLUSIVE, None, None, needed, (opening, upcoming))


def _on_looks(look: Due | Waiting, registered: Sequence[int], verdict: Decision) -> list[str]:
    """What a reader must know about looking repeatedly."""
    if isinstance(look, Waiting):
        return []
    if registered:
        return [f"This is look {look.number} of {len(registered)} registered ones; it spends {look.alpha:.3g} of alpha."]
    if look.number > 1 and verdict.verdict is Verdict.PROMOTE:
        return [
            f"This is decision {look.number} on this workload, each taken at the full alpha: over many of them a model that "
            "is not good enough passes more often than alpha says. Register row counts in decision.looks to prevent that."
        ]
    return []


def _on_the_incumbent(comparison: Comparison, gates: Sequence[Gate], incumbent: Model | None) -> list[str]:
    """What a gate against the incumbent was really held against, where that is not plain."""
    if not any(gate.against is Against.INCUMBENT for gate in gates) or arm_of(comparison, incumbent) is not None:
        return []
    if incumbent is None:
        return ["The teacher serves this workload: it is the incumbent that gates were held against."]
    candidate, variant, _ = incumbent
    return [
        f"The incumbent, {candidate} ({variant}), is not among the models compared as it serves: gates against it were held "
        "against the teacher's logged answers, which asks for more."
    ]


def _winner_of(decision: Decision, findings: Sequence[ArmFinding]) -> tuple[str, str, str | None] | None:
    for finding in findings:
        arm = finding.arm
        if (arm.candidate, arm.variant) == (decision.candidate, decision.variant):
            return arm.candidate, arm.variant.value, arm.adapter_version
    return None


def _preference(finding: ArmFinding) -> tuple[float, float, float, int, str]:
    """Sorts the winner first."""
    report = finding.arm.report
    cost = report.cost_per_1k_usd if report and report.cost_per_1k_usd is not None else math.inf
    latency = report.latency_ms["p50"] if report and report.latency_ms["p50"] is not None else math.inf
    simplicity = list(Variant).index(finding.arm.variant)
    return (-round(finding.gates[0].test.low, 9), cost, latency, simplicity, finding.arm.candidate)


def _sentences(finding: ArmFinding) -> Iterator[str]:
    yield from (tested(finding.arm, found) for found in finding.gates)
    yield from (observed(finding.arm, found) for found in finding.observed)


def _worst(finding: ArmFinding) -> str:
    """The gate an arm misses by most, of those that could be judged: it is what the verdict rests on."""
    missed = [found for found in finding.observed if not found.met]
    if missed:
        return observed(finding.arm, missed[0])
    judged = [found for found in finding.gates if found.enough_clusters]
    return tested(finding.arm, min(judged, key=lambda found: found.test.high + found.gate.margin))


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
        wanted = max(1, math.ceil((min_clusters - test.clusters) * test.n / test.clusters))
        # Where the rows tell already, conversations are all that lacks.
        if min(test.p_non_inferior * arms, test.p_inferior * len(closest.gates)) > alpha:
            total = rows_to_settle(
                n=max(1, round(test.n_effective)),
                difference=test.difference,
                discordance=test.discordance,
                margin=found.gate.margin,
                alpha=alpha / arms,
                power=power,
            )
            wanted = max(wanted, math.ceil(total * test.n / test.n_effective) - test.n)
        missing[found.gate.label] = wanted
        mask = rows_of(comparison, found.gate).tobytes()
        by_rows[mask] = max(by_rows.get(mask, 0), wanted)
    return sum(by_rows.values()), missing


def _evidence(comparison: Comparison, findings: Sequence[ArmFinding], version: str) -> Json:
    return {
        "workload": comparison.workload,
        "workload_type": comparison.workload_type.value,
        "dataset_version": comparison.dataset_version,
        "comparison": version,
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
                "gates": [found.to_json() for found in finding.gates],
                "observed": [found.to_json() for found in finding.observed],
            }
            for finding in findings
        ],
        "holes": [
            {"candidate": arm.candidate, "variant": arm.variant.value, "state": arm.state, "reason": arm.reason}
            for arm in comparison.holes
        ],
    }
