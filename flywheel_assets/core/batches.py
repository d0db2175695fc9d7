"""Batches: which planned items go into one run together.

One run = one partition of one partitions definition (Dagster has no other), and one lane of it: base evaluation and
customization of a cell are separate lanes, so they run side by side. Used by `flywheel run` and by the `reconcile` sensor.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from flywheel_assets.core import graph
from flywheel_assets.core.graph import EVERYTHING, Partition
from flywheel_assets.core.planner import FlywheelState, Plan, PlanItem, Target, inputs_of
from flywheel_assets.core.rows import Variant


class Lane(StrEnum):
    """What a batch is about; the order is the order in which batches are started."""

    DATA = "data"
    VERDICT = "verdict"
    CUSTOMIZE = "customize"
    EXAMINE = "examine"
    # A lane of its own: a hub that is down fails no verdict, and an upload holds nothing up.
    PUBLISH = "publish"


_LANE_OF = {
    graph.RECORDS: Lane.DATA,
    graph.PROFILE: Lane.DATA,
    graph.BASE: Lane.DATA,
    graph.TRAIN: Lane.DATA,
    graph.FINETUNE_DECISION: Lane.CUSTOMIZE,
    graph.ADAPTER: Lane.CUSTOMIZE,
    graph.EVALS[Variant.CUSTOMIZED]: Lane.CUSTOMIZE,
    graph.VALIDATION_EVAL: Lane.EXAMINE,
    graph.PREFIX: Lane.EXAMINE,
    graph.EVALS[Variant.BASE]: Lane.EXAMINE,
    graph.EVALS[Variant.PREFIXED]: Lane.EXAMINE,
    graph.TEACHER_EVAL: Lane.EXAMINE,
    graph.COMPARISON: Lane.VERDICT,
    graph.DECISION: Lane.VERDICT,
    graph.CATALOG: Lane.VERDICT,
    graph.PUBLISHED_ADAPTER: Lane.PUBLISH,
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one partition and lane, upstream first: what one run materializes."""

    partition: Partition
    lane: Lane
    items: tuple[PlanItem, ...]

    @property
    def identity(self) -> tuple[Partition, Lane]:
        """Two batches of the same identity must not run at the same time."""
        return self.partition, self.lane

    @property
    def name(self) -> str:
        """The identity as text, for run tags; `parse_identity` reads it."""
        return f"{self.partition.path}@{self.lane}"

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets to materialize."""
        return tuple(item.asset for item in self.items)

    @property
    def key(self) -> str:
        """Names what the batch is started for: the inputs keys of its ready items."""
        return "+".join(item.inputs_key[:16] for item in self.items if item.inputs_key)


def batches(plan: Plan, *, busy: Collection[tuple[Partition, Lane]] = (), untrained: Collection[str] = ()) -> list[Batch]:
    """The batches that can start now, in the order they should.

    `untrained` are candidates that are never trained: their one lane has room for the assets that say so. An item joins a
    batch if it is ready, or waits only for items of that batch; what waits for anything else comes later.
    """
    grouped: dict[tuple[Partition, Lane], list[PlanItem]] = {}
    taken: dict[tuple[Partition, Lane], set[Target]] = {}
    for item in plan.items:
        identity = (item.partition, _lane_of(item, untrained))
        if identity in busy:
            continue
        members = taken.setdefault(identity, set())
        if all(target in members for target in item.waits_for):
            members.add(item.target)
            grouped.setdefault(identity, []).append(item)
    order = list(Lane)
    found = [Batch(partition, lane, tuple(items)) for (partition, lane), items in grouped.items()]
    return sorted(found, key=lambda batch: order.index(batch.lane))


def _lane_of(item: PlanItem, untrained: Collection[str]) -> Lane:
    lane = _LANE_OF[item.asset]
    # A training takes hours, and a run is worth it; that there is none is said in no time.
    return Lane.EXAMINE if lane is Lane.CUSTOMIZE and item.partition.candidate in untrained else lane


def meanwhile(state: FlywheelState, plan: Plan) -> list[Batch]:
    """The catalog, where something was decided since it was made and it would have to wait for other workloads.

    It says what is decided now. Where there is traffic, some workload is always about to be decided again.
    """
    target = (graph.CATALOG, EVERYTHING)
    item, published = plan.item(target), state.published.get(target)
    if item is None or item.ready:
        return []
    key = inputs_of(target, state).key
    decided = any(name == graph.DECISION for name, _ in state.published)
    failed = state.failures.get(target)
    if not decided or (published is not None and published.inputs_key == key) or (failed and failed.inputs_key == key):
        return []
    alone = PlanItem(graph.CATALOG, EVERYTHING, "something was decided meanwhile", key)
    return [Batch(EVERYTHING, Lane.VERDICT, (alone,))]


def parse_identity(name: str) -> tuple[Partition, Lane]:
    """The inverse of `Batch.name`."""
    path, _, lane = name.rpartition("@")
    workload, _, candidate = path.partition("/")
    return (EVERYTHING if path == EVERYTHING.path else Partition(workload, candidate)), Lane(lane)
