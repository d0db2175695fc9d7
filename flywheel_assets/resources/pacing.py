"""Pacing at work: the planner's state as if the records that must still wait were not there yet.

What belongs here: counting what is new and holding it back. What does not: the rule (`core.pacing`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flywheel_assets.core.graph import RECORDS, Partition
from flywheel_assets.core.pacing import Pace, why_to_wait
from flywheel_assets.core.planner import FlywheelState
from flywheel_assets.resources.flywheel import Flywheel


@dataclass(frozen=True, slots=True)
class Paced:
    """The state to plan with, and the workloads whose new records wait, each with the reason."""

    state: FlywheelState
    waiting: Mapping[str, str]


def paced(flywheel: Flywheel, state: FlywheelState, now: float | None = None) -> Paced:
    """Hold back new records according to `automation` in flywheel.yaml; `now` is epoch seconds.

    A workload that waits keeps the watermark its records were made with, so edited settings and dead runs still start
    what they must; one that was never made is not there at all. Costs one count for each workload with new records.
    """
    clock = time.time() if now is None else now
    workloads, watermarks = dict(state.workloads), dict(state.watermarks)
    waiting: dict[str, str] = {}
    for workload, watermark in state.watermarks.items():
        artifact = flywheel.artifacts.current(RECORDS, Partition(workload))
        seen = None if artifact is None else artifact.summary.get("watermark")
        if seen == watermark:
            continue
        settings = flywheel.settings.automation_for(workload)
        pace = Pace(settings.min_new_records, 60 * settings.cooldown_minutes)
        since = None if artifact is None else clock - float(artifact.manifest["created_at"])
        reason = why_to_wait(pace, flywheel.traces.count_after(workload, seen), since)
        if reason is None:
            continue
        waiting[workload] = reason
        if seen is None:
            del workloads[workload], watermarks[workload]
        else:
            watermarks[workload] = seen
    return Paced(replace(state, workloads=workloads, watermarks=watermarks), waiting)
