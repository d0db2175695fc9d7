"""One turn of `flywheel run`, and the records it is about.

What belongs here: which records a turn has read, and which came too late for it. What does not: when the sensor begins one
(`resources.pacing`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from flywheel_assets.core.graph import RECORDS, Partition
from flywheel_assets.core.planner import FlywheelState
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.trace_stores import WorkloadSummary


@dataclass(slots=True)
class OneTurn:
    """The records that one turn of `flywheel run` is about: what comes while it works is for the next one.

    `known` are the workloads it began with, `read` those whose records it has read, or found read.
    """

    known: frozenset[str] | None = None
    read: set[str] = field(default_factory=set)

    def shown(self, flywheel: Flywheel, state: FlywheelState) -> FlywheelState:
        """The state to plan with. What appeared since is there without records, as the catalog sees it."""
        if self.known is None:
            self.known = frozenset(state.workloads)
            self.read = {slug for slug, mark in state.watermarks.items() if flywheel.watermark_read(slug) == mark}
        return replace(
            state,
            watermarks={
                slug: (flywheel.watermark_read(slug) or mark) if slug in self.read else mark
                for slug, mark in state.watermarks.items()
                if slug in self.known
            },
        )

    def settle(self, partition: Partition, assets: Collection[str]) -> None:
        """Take down that a batch has ended: records that were attempted are not read again in this turn."""
        if RECORDS in assets:
            self.read.add(partition.workload)

    def includes(self, partition: Partition) -> bool:
        """Whether a partition is of a workload that the turn began with, or of all."""
        return self.known is None or not partition.workload or partition.workload in self.known

    def arrived(self, flywheel: Flywheel) -> tuple[str, ...]:
        """The workloads with records that came too late for this turn."""
        late = (summary.slug for summary in flywheel.traces.workloads() if self._is_late(flywheel, summary))
        return tuple(sorted(late))

    def _is_late(self, flywheel: Flywheel, summary: WorkloadSummary) -> bool:
        if self.known is not None and summary.slug not in self.known:
            return True
        return summary.slug in self.read and flywheel.watermark_read(summary.slug) not in (None, summary.watermark)
