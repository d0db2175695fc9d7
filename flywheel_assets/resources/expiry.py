"""Expiry: why a decision does not hold any more, though nobody has made another one yet.

What belongs here: the ways a decision ends: what it rests on changed (gates, prices, models), newer records have waited
for longer than promised, the traffic drifted, its tools changed, or it grew old. What does not: what is stale
(`core.planner`) and who may act on a decision (`resources.promotions`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flywheel_assets.core import graph
from flywheel_assets.core.planner import Plan
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.lag import lag_of
from flywheel_assets.resources.pacing import pace_of

if TYPE_CHECKING:
    from flywheel_assets.resources.flywheel import Flywheel

_DAY_S = 86_400.0


def expires_at(flywheel: Flywheel, decision: Artifact) -> str:
    """When a decision grows too old (ISO 8601, UTC), if nothing ends it before."""
    days = flywheel.settings.decision_for(decision.partition.workload).max_age_days
    return datetime.fromtimestamp(_made_at(decision) + days * _DAY_S, UTC).isoformat(timespec="seconds")


def why_expired(flywheel: Flywheel, decision: Artifact, watermark: str | None, settled: Plan) -> str | None:
    """Why a decision does not hold any more, for the person who must act; None while it does.

    `watermark` is where the trace store stands; `settled` today's plan as if nothing had come since the records were read:
    where traffic flows, newer records alone must not end every decision before anybody can act on it.
    """
    partition = decision.partition
    if (drifted := _drifted(flywheel, decision)) is not None:
        return f"the traffic is not what it was: {drifted} Run `flywheel run {partition.workload}`"
    if (stale := settled.item((graph.DECISION, partition))) is not None:
        return f"the decision would be made again ({stale.reason}). Run `flywheel run {partition.workload}`"
    held_up = next((hole for hole in settled.holes if (hole.asset, hole.partition) == (graph.DECISION, partition)), None)
    if held_up is not None:
        return f"the decision cannot be made again now ({held_up.reason}). Run `flywheel run {partition.workload}`"
    behind = lag_of(flywheel, partition.workload, watermark, settled)
    promised = pace_of(flywheel, partition.workload).max_lag_s
    if behind is not None and behind.seconds > promised:
        return (
            f"{behind.waiting:,} newer records are not in it, and it is {behind.seconds / 60:,.0f} minutes behind "
            f"(automation.max_lag_minutes: {promised / 60:g}). Run `flywheel run {partition.workload}`"
        )
    age = (time.time() - _made_at(decision)) / _DAY_S
    if age > (most := flywheel.settings.decision_for(partition.workload).max_age_days):
        return f"the decision is {age:.0f} days old, and decision.max_age_days is {most}. Bring newer records, or raise it"
    return None


def _drifted(flywheel: Flywheel, decision: Artifact) -> str | None:
    """What the drift check said of a profile that was made after the decision: new tools, or other traffic."""
    profile = flywheel.artifacts.current(graph.PROFILE, decision.partition)
    if profile is None or float(profile.manifest["created_at"]) <= _made_at(decision):
        return None
    found = next((check for check in profile.summary.get("checks", ()) if check["name"] == "drift"), None)
    return None if found is None or found["passed"] else str(found["message"])


def _made_at(decision: Artifact) -> float:
    return float(decision.manifest["created_at"])
