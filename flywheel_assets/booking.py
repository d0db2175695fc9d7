"""Booking: what a batch that has ended made, and what of it must not be tried again in the same turn.

What belongs here: reading refs, recorded failures and the events of a failed run. What does not: what to start (`runner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dagster import DagsterEventType, DagsterInstance, RunsFilter

from flywheel_assets.assets.keys import NAME_OF
from flywheel_assets.core.batches import Batch, Lane
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.planner import Attempt, Hole, PlanItem
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG, FLYWHEEL_RUN_TAG

_TELLING = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.STEP_START,
}


@dataclass(slots=True)
class RunReport:
    """What one call of `turn` did. `workloads` are those asked for (none: all); `seconds` maps batches to wall seconds;
    `arrived` are the workloads that got records too late for this turn."""

    flywheel_run: str
    workloads: tuple[str, ...] = ()
    materialized: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    left: tuple[PlanItem, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    buried: list[str] = field(default_factory=list)
    arrived: tuple[str, ...] = ()
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything asked for is in place."""
        return not self.failures and not self.holes


Attempted = tuple[tuple[Partition, Lane], tuple[tuple[str, str | None], ...]]


def attempt(batch: Batch) -> Attempted:
    """What is tried once in a turn: these assets, for these inputs."""
    return batch.identity, tuple((item.asset, item.inputs_key) for item in batch.items)


@dataclass(frozen=True, slots=True)
class RunSaid:
    """What a run that failed said before it ended: the assets it reported as made, and those whose work had begun.

    Empty where there is no run: its worker died before it could make one.
    """

    run_id: str = ""
    made: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()


def settle(instance: DagsterInstance, flywheel: Flywheel, batch: Batch, succeeded: bool, report: RunReport) -> set[Attempt]:
    """Book one finished batch; the attempts that must not be made again in this turn."""
    said = RunSaid(made=frozenset(batch.assets)) if succeeded else _said_by_the_run(instance, batch, report.flywheel_run)
    booked = len(report.failures)
    given_up: set[Attempt] = set()
    unsaid: list[PlanItem] = []
    for item in batch.items:
        name = name_of(item)
        failure = flywheel.artifacts.failure(*item.target)
        published = flywheel.artifacts.published(*item.target)
        if item.asset in said.made and published is not None and published.state == "failed":
            given_up.add((*item.target, published.inputs_key))
            report.failures[name] = published.reason or "failed"
        elif item.asset in said.made:
            report.materialized.append(name)
        # What an earlier attempt left says nothing about this one.
        elif failure is not None and said.run_id and failure.run_id == said.run_id:
            given_up.add((*item.target, failure.inputs_key))
            report.failures[name] = failure.message
        elif item.inputs_key is not None:
            unsaid.append(item)
    if not succeeded and len(report.failures) == booked:
        given_up |= _book_a_kill(flywheel, unsaid, said, report)
    if not succeeded and len(report.failures) == booked:
        report.failures[batch.name] = "its run failed; its log in the Dagster UI says why"
    return given_up


def _book_a_kill(flywheel: Flywheel, unsaid: Sequence[PlanItem], said: RunSaid, report: RunReport) -> set[Attempt]:
    """The attempt that a run ended in before its body could say anything. What it had not come to was not attempted.

    Without a record the planner would start it again for ever.
    """
    item = next((one for one in unsaid if one.asset in said.begun), None) or next(iter(unsaid), None)
    if item is None or item.inputs_key is None:
        return set()
    killed = flywheel.artifacts.record_kill(*item.target, item.inputs_key)
    report.failures[name_of(item)] = killed.message
    return {(*item.target, item.inputs_key)}


def _said_by_the_run(instance: DagsterInstance, batch: Batch, flywheel_run: str) -> RunSaid:
    """What the latest run of a batch said."""
    tags = {FLYWHEEL_RUN_TAG: flywheel_run, BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key}
    for run in instance.get_runs(filters=RunsFilter(tags=tags), limit=1):
        made: set[str] = set()
        begun: set[str] = set()
        assets_of: dict[str | None, set[str]] = {}
        for entry in instance.all_logs(run.run_id, of_type=_TELLING):
            event = entry.get_dagster_event()
            if event.event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED and event.asset_key in NAME_OF:
                assets_of.setdefault(event.step_key, set()).add(NAME_OF[event.asset_key])
            elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION and event.asset_key in NAME_OF:
                made.add(NAME_OF[event.asset_key])
            elif event.event_type is DagsterEventType.STEP_START:
                begun |= assets_of.get(event.step_key, set())
        return RunSaid(run.run_id, frozenset(made), frozenset(begun - made))
    return RunSaid()


def name_of(item: PlanItem) -> str:
    """What an item is called in reports."""
    return f"{item.asset} of {item.partition}"
