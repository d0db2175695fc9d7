"""Booking: what a batch that has ended made, and what of it must not be tried again in the same turn.

What belongs here: reading refs, recorded failures and the events of a failed run. What does not: what to start (`runner`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dagster import DagsterEventType, DagsterInstance, RunsFilter

from flywheel_assets.assets.keys import NAME_OF
from flywheel_assets.core.batches import Batch, Lane
from flywheel_assets.core.graph import RECORDS, Partition
from flywheel_assets.core.planner import Attempt, Hole, PlanItem, Published
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG, FLYWHEEL_RUN_TAG


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


def _said_by_the_run(instance: DagsterInstance, batch: Batch, flywheel_run: str) -> frozenset[str]:
    """The assets whose materialization the latest run of a batch reported before it failed."""
    runs = instance.get_runs(
        filters=RunsFilter(tags={FLYWHEEL_RUN_TAG: flywheel_run, BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key}), limit=1
    )
    events = instance.all_logs(runs[0].run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION) if runs else ()
    return frozenset(NAME_OF[entry.asset_materialization.asset_key] for entry in events if entry.asset_materialization)


def settle(instance: DagsterInstance, flywheel: Flywheel, batch: Batch, succeeded: bool, report: RunReport) -> set[Attempt]:
    """Book one finished batch; the attempts that must not be made again in this turn."""
    # Of a run that failed, only what it reported before counts as made.
    made = None if succeeded else _said_by_the_run(instance, batch, report.flywheel_run)
    booked = len(report.failures)
    given_up: set[Attempt] = set()
    for item in batch.items:
        name = name_of(item)
        failure = flywheel.artifacts.failure(*item.target)
        published = flywheel.artifacts.published(*item.target)
        # An earlier attempt's kill says nothing about this one.
        if failure is not None and not failure.kills:
            given_up.add((*item.target, failure.inputs_key))
            report.failures[name] = failure.message
        elif published is not None and published.state == "failed":
            given_up.add((*item.target, published.inputs_key))
            report.failures[name] = published.reason or "failed"
        elif published is not None and (item.asset in made if made is not None else _is_for(published, item)):
            report.materialized.append(name)
        elif made is not None and published is not None and item.inputs_key == published.inputs_key:
            # It is there, and Dagster was not told: the next turn tells it, without computing anything.
            given_up.add((*item.target, published.inputs_key))
            report.failures[name] = "it is published, but its run failed before it was reported; the run's log says why"
        elif made is not None and item.inputs_key is not None:
            # The run ended before the body could say why; without a record the planner would start it again for ever.
            killed = flywheel.artifacts.record_kill(*item.target, item.inputs_key, report.flywheel_run)
            given_up.add((*item.target, item.inputs_key))
            report.failures[name] = killed.message
    if not succeeded and len(report.failures) == booked:
        report.failures[batch.name] = "its run failed; its log in the Dagster UI says why"
    return given_up


def _is_for(published: Published, item: PlanItem) -> bool:
    return item.inputs_key in (None, published.inputs_key) or item.asset == RECORDS


def name_of(item: PlanItem) -> str:
    """What an item is called in reports."""
    return f"{item.asset} of {item.partition}"
