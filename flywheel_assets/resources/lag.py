"""Lag: how far a workload's decision is behind its traffic.

What belongs here: when the records behind a decision were read, and what came since. What does not: whether that starts
anything (`core.pacing`), and what else ends a decision (`resources.expiry`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flywheel_assets.core.graph import DECISION, RECORDS, Partition
from flywheel_assets.core.planner import Plan
from flywheel_assets.core.rows import Json

if TYPE_CHECKING:
    from flywheel_assets.resources.flywheel import Flywheel

# In the summary of a decision: when the records behind it had been read (epoch seconds).
TRAFFIC_READ_AT = "traffic_read_at"


@dataclass(frozen=True, slots=True)
class Lag:
    """`waiting` records came after those behind the decision, which had been read at `read_at` (epoch seconds)."""

    waiting: int
    read_at: float

    @property
    def seconds(self) -> float:
        """How old the decision's view of the traffic is: an upper bound on how long any record has waited."""
        return max(0.0, time.time() - self.read_at)

    def to_json(self) -> Json:
        """For `flywheel status --json`."""
        return {"waiting_records": self.waiting, "seconds": round(self.seconds)}


def lag_of(flywheel: Flywheel, workload: str, watermark: str | None, settled: Plan) -> Lag | None:
    """How far the decision of a workload is behind; None where it is about all there is, or nothing is decided yet.

    `watermark` is where the trace store stands; `settled` the plan as if nothing had come since the records were read.
    """
    records = flywheel.artifacts.current(RECORDS, Partition(workload))
    decision = flywheel.artifacts.current(DECISION, Partition(workload))
    if records is None or decision is None:
        return None
    read = records.summary["watermark"]
    under_way = any(item.partition.workload == workload for item in settled.items)
    if watermark is None or (read == watermark and not under_way):
        return None
    read_at = records.manifest["created_at"]
    if under_way:
        # What the records hold is not decided on yet. Decisions of earlier versions say only when they were made.
        read_at = decision.summary.get(TRAFFIC_READ_AT) or min(read_at, decision.manifest["created_at"])
    return Lag(flywheel.traces.count_after(workload, read), float(read_at))
