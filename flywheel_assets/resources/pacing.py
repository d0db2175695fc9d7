"""Pacing at work: the planner's state as if the records that must still wait were not there yet.

What belongs here: counting what is new and holding it back. What does not: the rule (`core.pacing`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flywheel_assets.core.graph import DECISION, RECORDS, Partition
from flywheel_assets.core.pacing import Arrivals, Pace, lag_s, why_to_wait
from flywheel_assets.core.planner import FlywheelState, every_failure, plan
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.lag import lag_of

if TYPE_CHECKING:
    from flywheel_assets.resources.flywheel import Flywheel


@dataclass(frozen=True, slots=True)
class Paced:
    """The state to plan with; the workloads whose new records wait, each with the reason; and where the store stood for
    those, for the next look to tell traffic that flows from traffic that has come to rest."""

    state: FlywheelState
    waiting: Mapping[str, str]
    seen: Mapping[str, str]


def paced(
    flywheel: Flywheel,
    state: FlywheelState,
    *,
    under_way: Collection[str] = (),
    seen: Mapping[str, str] | None = None,
    now: float | None = None,
) -> Paced:
    """Hold back new records according to `automation` in flywheel.yaml; `now` is epoch seconds.

    `under_way` are the workloads that runs work for, `seen` is what the look before gave (None: there was none). A workload
    that waits keeps the watermark its records were read up to, so edited settings and dead runs still start what they
    must; one that was never made is there without records, as the catalog sees it. A turn that has begun ends before the
    next: until its decision is made, the planner is shown the records it began with. Costs one count for each workload
    with new records.
    """
    clock = time.time() if now is None else now
    records = {workload: flywheel.artifacts.current(RECORDS, Partition(workload)) for workload in state.watermarks}
    read = {workload: str(made.summary["watermark"]) for workload, made in records.items() if made is not None}
    fresh = {workload: mark for workload, mark in state.watermarks.items() if read.get(workload) != mark}
    settled = plan(
        replace(state, watermarks={**state.watermarks, **read}), given_up=every_failure(state, but_unfinished=True)
    )
    busy = ({item.partition.workload for item in settled.items} | set(under_way)) & set(read)
    watermarks = dict(state.watermarks)
    waiting: dict[str, str] = {}
    for workload, mark in fresh.items():
        new = flywheel.traces.count_after(workload, read.get(workload))
        if workload in busy:
            reason: str | None = f"{new:,} new records wait until the turn under way has decided"
        else:
            flowing = seen is not None and seen.get(workload) != mark
            reason = why_to_wait(pace_of(flywheel, workload), _arrivals(flywheel, records[workload], new, flowing, clock))
        if reason is None:
            continue
        lag = lag_of(flywheel, workload, mark, settled)
        waiting[workload] = reason if lag is None else f"{reason} (its decision is {lag.seconds / 60:.0f} min behind)"
        if workload in read:
            watermarks[workload] = read[workload]
        else:
            del watermarks[workload]
    seen_now = {workload: mark for workload, mark in fresh.items() if workload in waiting}
    return Paced(replace(state, watermarks=watermarks), waiting, seen_now)


def pace_of(flywheel: Flywheel, workload: str) -> Pace:
    """How `automation` in flywheel.yaml paces a workload."""
    automation = flywheel.settings.automation_for(workload)
    pace = Pace(
        min_new_records=automation.min_new_records if isinstance(automation.min_new_records, int) else None,
        cooldown_s=60 * automation.cooldown_minutes,
        max_lag_s=60 * automation.max_lag_minutes,
        first_records=flywheel.settings.split_for(workload).min_total_records,
    )
    return replace(pace, max_lag_s=lag_s(pace))


def _arrivals(flywheel: Flywheel, records: Artifact | None, new: int, flowing: bool, clock: float) -> Arrivals:
    if records is None:
        return Arrivals(new)
    decision = flywheel.artifacts.current(DECISION, records.partition)
    read_at = float(records.manifest["created_at"])
    decided_at = read_at if decision is None else float(decision.manifest["created_at"])
    return Arrivals(
        new,
        known=int(records.summary["records"]),
        since_s=clock - read_at,
        # A turn that changed nothing leaves the decision of an earlier one.
        turn_s=max(0.0, decided_at - read_at),
        flowing=flowing,
        decided=decision is not None,
    )
