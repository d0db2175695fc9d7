"""Sample plan: how large a workload's exam should be, and what its verdict still takes, from the settings and what is made.

What belongs here: reading settings and artifacts for `core.exam_size` and `core.needs`. What does not: the arithmetic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from flywheel_assets.core import graph
from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.datasets.conversation import NO_CALL, TOOL_CLASS_PREFIX
from flywheel_assets.core.datasets.exam import ExamFacts, ExamPlan, PlanExam
from flywheel_assets.core.exam_size import Planning, gate_shares, plan_exam, planned_needs
from flywheel_assets.core.gate_findings import MIN_CLUSTERS, judge_arms
from flywheel_assets.core.gates import (
    DEFAULT_MARGIN,
    Gate,
    GateKind,
    InvalidEvidence,
    InvalidGate,
    checked_gates,
    for_shares,
    gates_of_type,
)
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.looks import Waiting, counted, next_look, schedule_of, spent_by
from flywheel_assets.core.needs import GateNeed, Needs, Supply, closest, gate_needs, needs_of, needs_until, rows_needed
from flywheel_assets.core.rows import Json, Variant, WorkloadType
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import registered_gates
from flywheel_assets.resources.judge.choice import judge_columns
from flywheel_assets.settings import Settings


def exam_planner(settings: Settings, workload: str, kind: WorkloadType) -> PlanExam:
    """How `core.datasets` asks for the size of a workload's exam, once, when its first dataset is built."""

    def planned(facts: ExamFacts) -> ExamPlan:
        gates = _gates(settings, workload, kind, facts.kinds)
        plan = plan_exam(gates, gate_shares(gates, kind, facts.kinds), facts, planning_of(settings, workload))
        return replace(plan, default_margins=_default_margins(settings, workload, kind, facts.kinds))

    return planned


def _default_margins(
    settings: Settings, workload: str, kind: WorkloadType, kinds: Mapping[str, int]
) -> dict[str, float | None]:
    """The margin of each default gate at these shares of the classes of answers; None where a class is too rare for one."""
    gates = gates_of_type(kind, judge_columns(settings, workload, kind))
    shares = gate_shares(gates, kind, kinds)
    kept = {gate.metric: gate.limit for gate in for_shares(gates, shares)}
    # Whether texts are JSON is not known of a class, so that its gate is as wide as the rows that are drawn ask for.
    return {gate.metric: kept.get(gate.metric) for gate in gates if gate.metric != "json_match"}


def planning_of(settings: Settings, workload: str) -> Planning:
    """What `decision` and `split` say of a workload's exam, and how many variants will compete."""
    decision = settings.decision_for(workload)
    return Planning(
        arms=max(1, arms_of(settings, workload)),
        alpha=decision.alpha,
        power=decision.power,
        expected_loss=decision.expected_loss,
        expected_gain=decision.expected_gain,
        expected_discordance=decision.expected_discordance,
        max_calls=settings.split_for(workload).max_eval_calls,
    )


def arms_of(settings: Settings, workload: str) -> int:
    """How many variants of all candidates will be evaluated, if none fails: adapters only of those that can be trained."""
    return sum(
        len(Variant) - (candidate.is_remote or not candidate.trainable) for candidate in settings.candidates_of(workload)
    )


def _gates(settings: Settings, workload: str, kind: WorkloadType, kinds: Mapping[str, int]) -> tuple[Gate, ...]:
    """The registered gates, or those of the type at the shares that its classes of answers have."""
    registered = registered_gates(settings, workload)
    if registered:
        return registered
    gates = gates_of_type(kind, judge_columns(settings, workload, kind))
    return for_shares(gates, gate_shares(gates, kind, kinds))


def sample_size_plan(flywheel: Flywheel, workload: str, margin: float | None) -> Json:
    """What `flywheel plan` shows: per gate what a verdict takes, in rows, conversations and records to ingest.

    From the last comparison, of candidates that are still configured; before there is one from the planning values of
    `decision`; before the records were profiled for any one gate, since which gates there are depends on what they hold.
    """
    settings, partition = flywheel.settings, Partition(workload)
    decision = settings.decision_for(workload)
    kind = _type(flywheel, workload)
    base = flywheel.artifacts.current(graph.BASE, partition)
    exam = exam_of(base)
    comparison = _compared(flywheel, workload)
    about, needs = (
        _seen(flywheel, workload, comparison, margin)
        if comparison is not None and comparison.evaluated
        else (None, _planned(flywheel, workload, kind, base, margin))
    )
    looks = schedule_of(decision.looks, exam)
    return {
        "workload": workload,
        "type": None if kind is None else kind.value,
        "records": flywheel.traces.summary(workload).count,
        "eval_rows": 0 if base is None else base.summary["eval_rows"],
        "alpha": decision.alpha,
        "power": decision.power,
        "arms": len(comparison.evaluated) if comparison is not None else arms_of(settings, workload),
        "about": about,
        "gates": [need.to_json() for need in needs.gates],
        "eval_rows_needed": needs.eval_rows,
        "records_needed": needs.records,
        "unused": needs.unused,
        "eval_size": needs.eval_size,
        "exam": exam,
        "looks": [
            {"rows": count, "spent": total} for count, total in zip(looks, spent_by(looks, decision.alpha), strict=True)
        ],
        "what_now": list(needs.sentences()),
        "note": _note(kind, about),
    }


def _note(kind: WorkloadType | None, about: str | None) -> str:
    if about is not None:
        return (
            f"Planned from what the last comparison showed of {about}, the variant closest to meeting every gate, at the "
            "level and power that the decision uses. Rows are those that a gate applies to."
        )
    expected = "Planned for a candidate that loses decision.expected_loss, before anything was evaluated."
    if kind is None:
        return (
            f"{expected} The records were not looked at yet, so which gates there are is not known: this is any one gate. "
            "`flywheel run` profiles them first."
        )
    return f"{expected} Rows are those that a gate applies to."


def _type(flywheel: Flywheel, workload: str) -> WorkloadType | None:
    """The workload's type as profiled; None where that was not done, or it has none."""
    profile = flywheel.artifacts.current(graph.PROFILE, Partition(workload))
    known = None if profile is None else profile.summary.get("type")
    return WorkloadType(known) if known in set(WorkloadType) else None


def _compared(flywheel: Flywheel, workload: str) -> Comparison | None:
    """The current comparison, with the arms of candidates that are still configured."""
    artifact = flywheel.artifacts.current(graph.COMPARISON, Partition(workload))
    if artifact is None:
        return None
    comparison = Comparison.from_json(orjson.loads((artifact.path / "comparison.json").read_bytes()))
    configured = {candidate.id for candidate in flywheel.settings.candidates_of(workload)}
    return replace(comparison, arms=tuple(arm for arm in comparison.arms if arm.candidate in configured))


def _seen(flywheel: Flywheel, workload: str, comparison: Comparison, margin: float | None) -> tuple[str | None, Needs]:
    """Who is closest to meeting every gate, and what that takes; as the decision counts it."""
    decision = flywheel.settings.decision_for(workload)
    try:
        gates = checked_gates(comparison, _at(registered_gates(flywheel.settings, workload), margin))
    except (InvalidGate, InvalidEvidence):
        # What is wrong with the gates is said by the decision that refuses them.
        return None, rows_needed(0, len(comparison.row_ids), Supply.of(comparison))
    supply, rows = Supply.of(comparison), len(comparison.row_ids)
    look = next_look(
        schedule_of(decision.looks, comparison.exam),
        counted(flywheel.looks.entries(workload)),
        alpha=decision.alpha,
        rows=rows,
        comparison=comparison.data_version(),
    )
    level = decision.alpha if isinstance(look, Waiting) else look.alpha
    findings = judge_arms(
        comparison,
        _at(gates, margin),
        alpha=level,
        min_clusters=MIN_CLUSTERS,
        seed=0,
        incumbent=flywheel.incumbent(workload),
    )
    nearest = closest(findings)
    needs = gate_needs(comparison, nearest, arms=len(findings), alpha=level, power=decision.power, min_clusters=MIN_CLUSTERS)
    if isinstance(look, Waiting):
        return nearest.arm.label, replace(needs_until(look, rows, supply), gates=needs)
    return nearest.arm.label, needs_of(needs, rows, supply)


def _planned(
    flywheel: Flywheel, workload: str, kind: WorkloadType | None, base: Artifact | None, margin: float | None
) -> Needs:
    """What the planning values ask for, of the eval rows there are."""
    settings = flywheel.settings
    rows = [] if base is None else read_eval_rows(base.path)
    sizes = Counter(Counter(row.cluster for row in rows).values()) or {1: 1}
    facts = ExamFacts(len(rows), _kinds(flywheel, workload), sizes)
    if kind is None:
        gates = _at(registered_gates(settings, workload) or (Gate("any metric", DEFAULT_MARGIN),), margin)
        shares = {gate.label: 1.0 for gate in gates}
    else:
        gates = _at(_gates(settings, workload, kind, facts.kinds), margin)
        shares = gate_shares(gates, kind, facts.kinds)
    planned = planned_needs(gates, shares, facts, planning_of(settings, workload))
    there = tuple(_beside(need, shares[need.gate], len(rows)) for need in planned)
    wanted = max((math.ceil((need.missing_rows or 0) / shares[need.gate]) for need in there), default=0)
    return rows_needed(wanted, len(rows), Supply.of_exam(exam_of(base), len(rows)), there)


def _beside(need: GateNeed, share: float, total: int) -> GateNeed:
    """A planned need beside the rows that are there already."""
    rows = round(share * total)
    missing = None if need.missing_rows is None else max(0, need.missing_rows - rows)
    conversations = (
        None
        if need.missing_rows is None or need.missing_conversations is None or missing is None
        else round(need.missing_conversations * missing / need.missing_rows)
    )
    return replace(need, rows=rows, missing_rows=missing, missing_conversations=conversations)


def exam_of(base: Artifact | None) -> Json:
    """How the eval rows were drawn; empty where that was not recorded, or there are none."""
    found: Json = {} if base is None else base.summary.get("exam") or {}
    return found


def _kinds(flywheel: Flywheel, workload: str) -> dict[str, int]:
    """The classes of answers as they were profiled, all tools as one: calls, and what is none."""
    profile = flywheel.artifacts.current(graph.PROFILE, Partition(workload))
    if profile is None:
        return {}
    calls = profile.summary["call_records"]
    return {TOOL_CLASS_PREFIX: calls, NO_CALL: profile.summary["records"] - calls}


def _at(gates: Sequence[Gate], margin: float | None) -> tuple[Gate, ...]:
    """The gates, non-inferior ones at another margin where one is given."""
    return tuple(
        replace(gate, limit=margin) if margin is not None and gate.kind is GateKind.NON_INFERIOR else gate for gate in gates
    )
