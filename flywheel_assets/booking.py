"""Booking: what a batch that has ended made, and what of it must not be tried again in the same turn.

What belongs here: reading refs, recorded failures and the events of a failed run. What does not: what to start (`runner`).
"""

from __future__ import annotations

from collections.abc import Iterable
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
    said = RunSaid(made=frozenset(batch.assets)) if succeeded else said_by_the_run(instance, batch, report.flywheel_run)
    given_up: set[Attempt] = set()
    failures: dict[str, str] = {}
    unsaid: list[PlanItem] = []
    # A failed check ends a run as well, and is a hole that says why.
    explained = succeeded
    for item in batch.items:
        name = name_of(item)
        failure = flywheel.artifacts.failure(*item.target)
        published = flywheel.artifacts.published(*item.target)
        if item.asset in said.made and published is not None and published.state == "failed":
            given_up.add((*item.target, published.inputs_key))
            failures[name] = published.reason or "failed"
        elif item.asset in said.made:
            report.materialized.append(name)
            explained = explained or (published is not None and published.blocked is not None)
        # What an earlier attempt left says nothing about this one.
        elif failure is not None and said.run_id and failure.run_id == said.run_id:
            given_up.add((*item.target, failure.inputs_key))
            failures[name] = failure.message
        else:
            unsaid.append(item)
    killed = None if failures or explained else at_work(unsaid, said)
    if killed is not None and killed.inputs_key is not None:
        # The run ended before the body could say why; without a record the planner would start it again for ever.
        failures[name_of(killed)] = flywheel.artifacts.record_kill(*killed.target, killed.inputs_key).message
        given_up.add((*killed.target, killed.inputs_key))
    if not failures and not explained:
        failures[batch.name] = "its run failed; its log in the Dagster UI says why"
    report.failures |= failures
    return given_up


def at_work(items: Iterable[PlanItem], said: RunSaid) -> PlanItem | None:
    """The one of `items` that a run was at when it ended without a word: what it had begun, else what is first to be made.

    Only one with an inputs key: what waits for others is not what was attempted.
    """
    ready = [item for item in items if item.inputs_key is not None]
    return next((item for item in ready if item.asset in said.begun), None) or next(iter(ready), None)


def said_by_the_run(instance: DagsterInstance, batch: Batch, flywheel_run: str | None = None) -> RunSaid:
    """What the latest run of a batch said, in one turn or in all."""
    turn = {} if flywheel_run is None else {FLYWHEEL_RUN_TAG: flywheel_run}
    tags = {**turn, BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key}
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
