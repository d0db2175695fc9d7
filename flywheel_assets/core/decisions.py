"""Decisions: may a small model replace the big one, said with its evidence.

What belongs here: the verdict, the winner, the rows still needed and the sentences that explain it. What does not: the gates
(`core.gates`), the tests (`core.statistics`), sentences about looks (`core.looks_text`), when a decision expires and who
approves it.

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
from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.datasets.exam import remarks_on
from flywheel_assets.core.decision_text import observed, tested
from flywheel_assets.core.gate_findings import MIN_CLUSTERS, ArmFinding, Model, arm_of, judge_arms
from flywheel_assets.core.gates import Against, Gate, InvalidEvidence, InvalidGate, check_evidence, checked_gates, rare_note
from flywheel_assets.core.looks import Look, StartOver, Waiting, next_look
from flywheel_assets.core.looks_text import on_looks, on_other_gates, upcoming_look
from flywheel_assets.core.needs import Needs, Supply, closest, gate_needs, needs_of, needs_until
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.core.unread import unread_remark, unread_share

__all__ = ["Decision", "InvalidEvidence", "InvalidGate", "Verdict", "decide", "incumbent_of", "look_taken"]

# Parts of the evidence that name files of one home; `comparison` says the same by what it means.
_NAMES_ARTIFACTS = ("dataset_version",)
# By what is listed, what of it names a file, an endpoint or an error of one home.
_SAYS_WHERE = {"arms": "version", "holes": "reason", "looks_taken": "answered_by"}


class Verdict(StrEnum):
    """What a decision says; `keep` keeps the incumbent."""

    PROMOTE = "promote"
    KEEP = "keep"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its evidence. `candidate` and `variant` name the winner of a promotion, and are None otherwise.

    `needed_rows` is set exactly when the verdict is inconclusive: about how many more eval rows would settle it; 0 where
    rows alone settle nothing, as where alpha is spent.
    """

    verdict: Verdict
    candidate: str | None
    variant: Variant | None
    needed_rows: int | None
    reasons: tuple[str, ...]
    evidence: Json = field(default_factory=dict)

    @property
    def needed_records(self) -> int | None:
        """About how many more records to ingest for `needed_rows`; None where nothing is needed or nobody knows."""
        needs = self.evidence.get("needs")
        return None if needs is None else needs["records"]

    def to_status(self) -> Json:
        """The form `flywheel status --json` shows."""
        return {
            "verdict": self.verdict.value,
            "candidate": self.candidate,
            "variant": None if self.variant is None else self.variant.value,
            "needed_rows": self.needed_rows,
            "needed_records": self.needed_records,
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
        """Hash of the verdict and what it rests on (32 hex digits); equal evidence gives equal decisions in any home.

        Versions of artifacts have no part in it (they hash files, and so latencies and pictures), nor have sentences, which
        repeat the evidence or tell how something failed.
        """
        meaning = {name: value for name, value in self.to_json().items() if name not in ("reasons", "evidence")}
        evidence = {name: value for name, value in self.evidence.items() if name not in _NAMES_ARTIFACTS}
        for entries, left_out in _SAYS_WHERE.items():
            if entries in evidence:
                evidence[entries] = [{k: v for k, v in entry.items() if k != left_out} for entry in evidence[entries]]
        return hashlib.sha256(json.dumps({**meaning, "evidence": evidence}, sort_keys=True).encode()).hexdigest()[:32]


def incumbent_of(decision: Decision) -> Model | None:
    """The model that served when this was decided, as its evidence names it; None is the teacher."""
    # Absent from decisions made before gates could be against it.
    found = decision.evidence["settings"].get("incumbent")
    return None if found is None else (found[0], Variant(found[1]), found[2])


def look_taken(decision: Decision) -> Look | None:
    """The look that a decision is, for the log of looks; None where it was none."""
    # The last one: `decide` puts it there.
    return None if decision.evidence["look"] is None else Look.from_json(decision.evidence["looks_taken"][-1])


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
    started_over: StartOver | None = None,
    seed: int = 0,
    incumbent: Model | None = None,
) -> Decision:
    """The verdict on a workload.

    `gates` are conditions all of which an arm must meet; empty means `core.gates.default_gates`. `alpha` is the chance, over
    all arms (and all registered looks) together, to promote one that misses a tested gate; `power` only sizes
    `needed_rows`. `looks` are the registered eval-row counts, `earlier` the looks taken since a person last
    started over, if ever (`started_over`; `core.looks`). `incumbent` is the model that serves now, for gates against it;
    None is the teacher.

    promote: an arm passes. The winner has the highest lower bound on the first tested gate; equal bounds: the cheaper, then
    the simpler variant, then the first by name. keep: every evaluated arm is shown to miss a gate. Otherwise inconclusive,
    also where no registered look is reached, where alpha is spent, and where a variant is still to be evaluated. Between
    looks the last verdict stands while its winner is still the one compared, the gates are the same and none that is plainly
    observed (a budget, zero tolerance) is missed. Equal input gives an equal decision.

    Raises InvalidEvidence where there is nothing sound to judge (no evaluated arm, arms asked other rows than the eval set,
    more than `max_error_share` errored rows), InvalidGate for a gate that cannot be judged.
    """
    chosen = checked_gates(comparison, gates)
    check_evidence(comparison, chosen, max_error_share)
    version = comparison.data_version()
    look = next_look(looks, earlier, alpha=alpha, rows=len(comparison.row_ids), comparison=version)
    # A variant that is still to be evaluated changes the comparison soon: a look at this one would be wasted.
    unfinished = [arm.label for arm in comparison.holes if arm.state == "missing"] if looks else []
    if unfinished:
        look = Waiting(None, earlier[-1] if earlier else None)
    # While waiting the scores are shown as they are, judged at the whole alpha; no verdict comes of it.
    level = alpha if isinstance(look, Waiting) else look.alpha
    findings = judge_arms(comparison, chosen, alpha=level, min_clusters=min_clusters, seed=seed, incumbent=incumbent)
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
    evidence["started_over"] = None if started_over is None else started_over.to_json()
    if isinstance(look, Waiting):
        evidence["look"] = None
        evidence["looks_taken"] = [taken.timeless().to_json() for taken in earlier]
        needs = needs_until(look, len(comparison.row_ids), Supply.of(comparison))
        evidence["needs"] = needs.to_json()
        upcoming = upcoming_look(comparison.workload, len(comparison.row_ids), look, unfinished, alpha, earlier)
        verdict = _between_looks(look, chosen, findings, needs, (upcoming, *needs.sentences()))
    else:
        evidence["look"] = {"number": look.number, "alpha": look.alpha}
        verdict = _verdict(comparison, findings, evidence, level, power, min_clusters)
        winner = _winner_of(verdict, findings)
        taken = Look(
            look.number,
            len(comparison.row_ids),
            version,
            look.alpha,
            verdict.verdict.value,
            tuple(looks),
            alpha,
            _named(winner),
            tuple(chosen),
            None if winner is None else winner.answered_by,
        )
        kept = [other.timeless() for other in earlier if not taken.repeats(other)]
        evidence["looks_taken"] = [other.to_json() for other in (*kept, taken)]
    remarks = [
        *on_looks(
            comparison.workload,
            look,
            looks,
            alpha,
            earlier,
            promoted=verdict.verdict is Verdict.PROMOTE,
            settled=verdict.verdict is not Verdict.INCONCLUSIVE,
        ),
        *([started_over.says] if started_over else []),
    ]
    remarks += [comparison.sources_note] if comparison.sources_note else []
    if comparison.condemned_note:
        evidence["condemned_gold"] = dict(comparison.condemned_gold)
        remarks.append(comparison.condemned_note)
    remarks += [*_on_the_incumbent(comparison, chosen, incumbent), *remarks_on(comparison.exam)]
    remarks += filter(None, [evidence["unread"], rare_note(comparison, gates)])
    remarks += on_other_gates(chosen, earlier, version)
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
    nearest = closest(findings)
    gates = gate_needs(comparison, nearest, arms=len(findings), alpha=alpha, power=power, min_clusters=min_clusters)
    needs = needs_of(gates, len(comparison.row_ids), Supply.of(comparison))
    evidence["closest"] = {
        "candidate": nearest.arm.candidate,
        "variant": nearest.arm.variant.value,
        "missing": {need.gate: need.missing_rows for need in gates if need.missing_rows},
    }
    evidence["needs"] = needs.to_json()
    reasons = (
        "The rows do not settle it: no variant is shown to be good enough, "
        f"and {nearest.arm.label} is not shown to be too weak.",
        *_sentences(nearest),
        *(
            f"About {need.missing_rows} more rows that '{need.gate}' applies to, of {need.missing_conversations} more "
            "conversations, would settle that gate."
            for need in gates
            if need.missing_rows
        ),
        *needs.sentences(),
    )
    return Decision(Verdict.INCONCLUSIVE, None, None, max(1, needs.eval_rows), reasons)


def _between_looks(
    waiting: Waiting, gates: Sequence[Gate], findings: Sequence[ArmFinding], needs: Needs, upcoming: Sequence[str]
) -> Decision:
    """What holds where no look is taken: the last verdict, as long as nothing it rests on changed.

    A new test would cost alpha; what is plainly observed (a price, a row that failed) costs none.
    """
    last, needed = waiting.last, needs.eval_rows
    if last is None:
        return Decision(Verdict.INCONCLUSIVE, None, None, needed, ("No registered look is reached yet.", *upcoming))
    said = f"Look {last.number}, at {last.rows} eval rows, "
    still = [finding for finding in findings if _named(finding.arm) == last.winner]
    changed = _changed_since(last, gates, still[0].arm if still else None)
    if not still or changed:
        because = f"{said}said {last.verdict}{changed}."
        return Decision(Verdict.INCONCLUSIVE, None, None, needed, (because, *upcoming))
    winner = still[0].arm
    missed = [observed(winner, found) for found in still[0].observed if not found.met]
    if missed:
        because = f"{said}promoted {winner.label}, which misses a gate now."
        return Decision(Verdict.INCONCLUSIVE, None, None, needed, (because, *missed, *upcoming))
    because = f"{said}promoted {winner.label}, and that stands."
    return Decision(Verdict.PROMOTE, winner.candidate, winner.variant, None, (because, *upcoming))


def _changed_since(look: Look, gates: Sequence[Gate], winner: Arm | None) -> str:
    """What a look's verdict rests on that is another today; empty where all is the same, or was not written down.

    `winner` is the arm of today that bears the name of the one promoted, if there is any.
    """
    if look.gates not in (None, tuple(gates)):
        return ", by other gates than those of today"
    if winner is not None and look.answered_by not in (None, winner.answered_by):
        return ", of another model or prefix than today's"
    return ""


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


def _winner_of(decision: Decision, findings: Sequence[ArmFinding]) -> Arm | None:
    named = decision.candidate, decision.variant
    return next((finding.arm for finding in findings if (finding.arm.candidate, finding.arm.variant) == named), None)


def _named(arm: Arm | None) -> tuple[str, str, str | None] | None:
    """An arm as a look names it."""
    return None if arm is None else (arm.candidate, arm.variant.value, arm.adapter_version)


def _preference(finding: ArmFinding) -> tuple[float, float, int, str]:
    """Sorts the winner first. Not by latency, which depends on the machine and the hour: a gate may ask for that."""
    report = finding.arm.report
    cost = report.cost_per_1k_usd if report and report.cost_per_1k_usd is not None else math.inf
    simplicity = list(Variant).index(finding.arm.variant)
    return (-round(finding.gates[0].test.low, 9), cost, simplicity, finding.arm.candidate)


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
