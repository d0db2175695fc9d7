"""Status: where every workload and cell stands, read from refs alone (no Dagster, no trace bodies).

`status_of` gives exactly what `flywheel status --json` prints.
"""

from __future__ import annotations

import orjson

from flywheel_assets.core import graph
from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.gates import Against, Gate, GateKind, default_gates, gates_of_type, rows_of
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.looks import spent_by
from flywheel_assets.core.planner import FlywheelState, Plan, Target, every_failure, is_upstreams_fault, plan
from flywheel_assets.core.promotion import is_approved, serving
from flywheel_assets.core.rows import Json, Variant, WorkloadType
from flywheel_assets.core.sample_size import Seen, plan_rows
from flywheel_assets.resources.artifacts import AlreadyBeingMade, Artifact
from flywheel_assets.resources.expiry import expires_at, why_expired
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import registered_gates
from flywheel_assets.resources.judge.choice import judge_columns


def status_of(flywheel: Flywheel) -> Json:
    """`{"workloads": {slug: {...}}}`, as described in docs/status.md."""
    state = flywheel.state()
    current = plan(state, given_up=every_failure(state))
    summaries = {summary.slug: summary for summary in flywheel.traces.workloads()}
    return {
        "workloads": {
            slug: {
                "workload_id": summaries[slug].workload_id,
                "type": _summary(flywheel, graph.PROFILE, Partition(slug)).get("type"),
                "records": summaries[slug].count,
                "dataset_version": _version(flywheel, Partition(slug)),
                "teacher": _variant(flywheel, state, current, (graph.TEACHER_EVAL, Partition(slug)))
                if state.wanted(graph.TEACHER_EVAL, Partition(slug))
                else None,
                "cells": {
                    candidate: {
                        str(variant): _variant(flywheel, state, current, (asset, Partition(slug, candidate)))
                        for variant, asset in graph.EVALS.items()
                    }
                    for candidate in candidates
                },
                "decision": _decision(flywheel, current, slug),
                "problems": [
                    {"asset": hole.asset, "candidate": hole.partition.candidate or None, "reason": hole.reason}
                    for hole in current.holes
                    if hole.partition.workload == slug and not is_upstreams_fault(hole.reason)
                ],
            }
            for slug, candidates in state.workloads.items()
        }
    }


def _variant(flywheel: Flywheel, state: FlywheelState, current: Plan, target: Target) -> Json:
    """One variant of one cell: `R` of the status format."""
    asset, partition = target
    artifact = flywheel.artifacts.current(asset, partition)
    planned = current.item(target)
    hole = next((hole for hole in current.holes if (hole.asset, hole.partition) == target), None)
    base: Json = {
        "state": "missing",
        "reason": None,
        "n": None,
        "scores": {},
        "aggregates": {},
        "latency_ms": {"p50": None, "p95": None},
        "cost_per_1k_usd": None,
    }
    if artifact is not None:
        known = {key: artifact.summary[key] for key in base if key in artifact.summary}
        base |= {**known, "state": artifact.state, "reason": artifact.reason}
    if _is_being_made(flywheel, target):
        return base | {"state": "running", "reason": None}
    if hole is not None:
        return base | {"state": "failed", "reason": hole.reason}
    if planned is not None:
        waiting = "pending" if artifact is None and state.published else base["state"]
        return base | {"state": "stale" if artifact is not None else waiting, "reason": planned.reason}
    return base


def _decision(flywheel: Flywheel, current: Plan, slug: str) -> Json | None:
    """`D` of the status format, with a word on whether it still stands."""
    artifact = flywheel.artifacts.current(graph.DECISION, Partition(slug))
    if artifact is None:
        return None
    keys = ("verdict", "candidate", "variant", "needed_rows", "reasons")
    stale = current.item((graph.DECISION, Partition(slug)))
    acts = flywheel.promotions.acts(slug)
    served = serving(acts)
    return {
        **{key: artifact.summary.get(key) for key in keys},
        "unread_share": _evidence(artifact).get("unread_share"),
        "approved": is_approved(acts, artifact.version),
        "serving": served.to_json() if served else None,
        "stale": stale.reason if stale else None,
        "expires": expires_at(flywheel, artifact),
        "expired": why_expired(flywheel, artifact, current),
    }


def _evidence(decision: Artifact) -> Json:
    return dict(orjson.loads((decision.path / "decision.json").read_bytes())["evidence"])


def _is_being_made(flywheel: Flywheel, target: Target) -> bool:
    """Whether some process holds the lock of a target right now."""
    try:
        with flywheel.artifacts.lock(*target, timeout_s=0):
            return False
    except AlreadyBeingMade:
        return True


def _summary(flywheel: Flywheel, asset: str, partition: Partition) -> Json:
    artifact = flywheel.artifacts.current(asset, partition)
    return {} if artifact is None else artifact.summary


def _version(flywheel: Flywheel, partition: Partition) -> str | None:
    artifact = flywheel.artifacts.current(graph.BASE, partition)
    return None if artifact is None else artifact.version


def headline(variant: Json, metrics: tuple[str, ...]) -> str:
    """The first of `metrics` that a variant has, as `0.812 [0.74, 0.87]`; its state where it has none."""
    for metric in metrics:
        score = variant["scores"].get(metric)
        if score and score.get("value") is not None:
            return f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
    return str(variant["state"])


VARIANTS = tuple(str(variant) for variant in Variant)


def sample_size_plan(flywheel: Flywheel, workload: str, margin: float | None) -> Json:
    """How many eval rows the gates of a workload need, from what was seen or several assumed discordances.

    Planned for every variant of every candidate that competes; the registered looks with what each spends of alpha.
    """
    settings = flywheel.settings.decision_for(workload)
    partition = Partition(workload)
    artifact = flywheel.artifacts.current(graph.COMPARISON, partition)
    comparison = (
        None if artifact is None else Comparison.from_json(orjson.loads((artifact.path / "comparison.json").read_bytes()))
    )
    gates = registered_gates(flywheel.settings, workload)
    if not gates and comparison is not None:
        gates = default_gates(comparison)
    elif not gates:
        kind = WorkloadType(_summary(flywheel, graph.PROFILE, partition).get("type") or WorkloadType.TOOL_CALLING)
        gates = gates_of_type(kind, judge_columns(flywheel.settings, workload, kind))
    planned = [gate for gate in gates if gate.kind is GateKind.NON_INFERIOR]
    candidates = flywheel.settings.candidates_of(workload)
    arms = len(comparison.evaluated) if comparison else len(Variant) * len(candidates)
    rows = plan_rows(
        [(gate.label, gate.limit if margin is None else margin) for gate in planned],
        available={} if comparison is None else {gate.label: int(rows_of(comparison, gate).sum()) for gate in planned},
        observed=_seen(flywheel.artifacts.current(graph.DECISION, partition)),
        arms=max(1, arms),
        alpha=settings.alpha,
        power=settings.power,
    )
    spent = spent_by(settings.looks, settings.alpha)
    return {
        "workload": workload,
        "records": flywheel.traces.summary(workload).count,
        "eval_rows": _summary(flywheel, graph.BASE, partition).get("eval_rows", 0),
        "alpha": settings.alpha,
        "power": settings.power,
        "arms": max(1, arms),
        "plans": [row.to_json() for row in rows],
        "looks": [{"rows": count, "spent": total} for count, total in zip(settings.looks, spent, strict=True)],
        "note": "Rows for a variant to be shown to lose less than the margin, one-sided, at this alpha (shared by all that "
        "compete) and power: as good as the teacher where nothing was seen yet, else as it was seen. Discordance is the "
        "share of rows on which the two disagree. Floors, improvements and budgets are not planned for.",
    }


def _seen(decision: Artifact | None) -> dict[str, Seen]:
    """What the best arm of the last decision showed, by gate: it is the one to plan for."""
    seen: dict[str, Seen] = {}
    if decision is None:
        return seen
    for arm in _evidence(decision)["arms"]:
        for gate in arm["gates"]:
            if gate.get("kind", GateKind.NON_INFERIOR) == GateKind.NON_INFERIOR:
                against = Against(gate.get("against", Against.REFERENCE))
                label = Gate(gate["metric"], gate["limit"], suite=gate.get("suite"), against=against).label
                found = Seen(gate["difference"], gate["discordance"])
                seen[label] = max(found, seen.get(label, found), key=lambda s: (s.difference, -s.discordance))
    return seen
