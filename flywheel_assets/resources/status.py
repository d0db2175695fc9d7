"""Status: where every workload and cell stands, read from refs alone (no Dagster, no trace bodies).

`status_of` gives exactly what `flywheel status --json` prints.
"""

from __future__ import annotations

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.looks import NOTHING, counted, last_start, schedule_of, spent
from flywheel_assets.core.planner import FlywheelState, Plan, Target, every_failure, plan
from flywheel_assets.core.promotion import is_approved, serving
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import AlreadyBeingMade, Artifact
from flywheel_assets.resources.expiry import expires_at, why_expired
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.json_files import Damaged, read_object
from flywheel_assets.resources.lag import lag_of
from flywheel_assets.resources.sample_plan import exam_of


def status_of(flywheel: Flywheel) -> Json:
    """`{"workloads": {slug: {...}}}`, as described in docs/status.md."""
    # Asked for once: in some stores this is a request over the network.
    known = flywheel.traces.workloads()
    state = flywheel.state(summaries=known)
    current = plan(state, given_up=every_failure(state))
    as_read = flywheel.state(summaries=known, as_read=True)
    settled = plan(as_read, given_up=every_failure(as_read))
    summaries = {summary.slug: summary for summary in known}
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
                # Absent from profiles that earlier versions made.
                "teacher_logged_latency_ms": _summary(flywheel, graph.PROFILE, Partition(slug)).get("latency_ms"),
                "cells": {
                    candidate: {
                        str(variant): _variant(flywheel, state, current, (asset, Partition(slug, candidate)))
                        for variant, asset in graph.EVALS.items()
                    }
                    for candidate in candidates
                },
                "decision": _decision(flywheel, current, settled, summaries[slug].watermark, slug),
                "problems": [
                    {"asset": hole.asset, "candidate": hole.partition.candidate or None, "reason": hole.reason}
                    for hole in current.holes
                    if hole.partition.workload == slug and not hole.inherited
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
        "inherited": False,
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
        return base | {"state": "failed", "reason": hole.reason, "inherited": hole.inherited}
    if planned is not None:
        waiting = "pending" if artifact is None and state.published else base["state"]
        return base | {"state": "stale" if artifact is not None else waiting, "reason": planned.reason}
    return base


def _decision(flywheel: Flywheel, current: Plan, settled: Plan, watermark: str, slug: str) -> Json | None:
    """`D` of the status format, with a word on whether it still stands.

    `current` is today's plan, `settled` the one as if nothing had come since the records were read up to.
    """
    artifact = flywheel.artifacts.current(graph.DECISION, Partition(slug))
    if artifact is None:
        return None
    keys = ("verdict", "candidate", "variant", "needed_rows", "needed_records", "reasons")
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
        "expired": why_expired(flywheel, artifact, watermark, settled),
        "lag": lag.to_json() if (lag := lag_of(flywheel, slug, watermark, settled)) is not None else None,
        "looks": looks_of(flywheel, slug),
    }


def looks_of(flywheel: Flywheel, workload: str) -> Json:
    """Where a workload stands with its looks: `{"registered", "alpha", "taken", "spent", "left", "started_over"}`.

    `taken` counts the comparisons looked at since the last start-over; `started_over` is that, or None.
    """
    settings = flywheel.settings.decision_for(workload)
    entries = flywheel.looks.entries(workload)
    looks, start = counted(entries), last_start(entries)
    left = settings.alpha - spent(looks)
    base = flywheel.artifacts.current(graph.BASE, Partition(workload))
    return {
        "registered": list(schedule_of(settings.looks, exam_of(base))),
        "alpha": settings.alpha,
        "taken": len({(look.comparison, look.schedule) for look in looks}),
        "spent": spent(looks),
        "left": left if left > NOTHING else 0.0,
        "started_over": None if start is None else start.to_json(),
    }


def _evidence(decision: Artifact) -> Json:
    file = decision.path / "decision.json"
    content = read_object(file, ("evidence",))
    if content is None:
        raise Damaged(file, "it is gone, or holds no evidence")
    return dict(content["evidence"])


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
