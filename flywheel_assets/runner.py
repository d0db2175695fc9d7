"""Runner: executes the plan on this machine, a few Dagster runs at a time, until nothing is stale or nothing can be done.

What `flywheel run` and the demo stand on. The runs are ordinary runs of the Dagster instance: they show in the UI, with
lineage. Each is executed by a process of its own (`run_worker`) that dies with this one, so killing `flywheel run` kills
them, and the next command reports them as failed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from dagster import DagsterInstance

from flywheel_assets.announcements import Announcements
from flywheel_assets.assets.capture import observe_summaries
from flywheel_assets.booking import Attempted, RunReport, attempt, name_of, settle
from flywheel_assets.core.batches import Batch, Lane, batches
from flywheel_assets.core.cleaning import CleaningPolicy, scrub_detail
from flywheel_assets.core.graph import CATALOG, DECISION, EVERYTHING, Scope, scope_of
from flywheel_assets.core.planner import Attempt, Hole, Plan, PlanItem, plan
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import untrained
from flywheel_assets.resources.one_turn import OneTurn
from flywheel_assets.resources.runs import announce_cancelling, bury_dead_runs
from flywheel_assets.settings import SettingsError


class Workers(Protocol):
    """Something that executes batches as Dagster runs."""

    def start(self, batch: Batch, flywheel_run: str) -> None:
        """Begin to execute a batch."""
        ...

    def wait(self) -> list[tuple[Batch, bool]]:
        """Block until at least one started batch has ended; each with whether it succeeded."""
        ...

    def stop(self) -> None:
        """End everything that still runs. Its runs are announced as being cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of the flywheel to turn; empty means all of it."""

    workloads: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()

    def allows(self, item: PlanItem) -> bool:
        """Whether an item may be executed."""
        if self.candidates and item.partition.candidate and item.partition.candidate not in self.candidates:
            return False
        return not (self.workloads and item.partition.workload and item.partition.workload not in self.workloads)

    def allows_hole(self, hole: Hole) -> bool:
        """Whether a hole is in what was asked for."""
        return self.allows(PlanItem(hole.asset, hole.partition, hole.reason, None))


Say = Callable[[str], None]


def slugs_of(flywheel: Flywheel, workloads: Collection[str]) -> tuple[str, ...]:
    """The slugs of workloads a user named, by slug or by original id; SettingsError lists the known ones."""
    known = {summary.slug: summary.workload_id for summary in flywheel.traces.workloads()}
    chosen = []
    for name in workloads:
        found = [slug for slug, original in known.items() if name in (slug, original)]
        if not found and (refused := flywheel.traces.rejects(name)):
            reasons = ", ".join(f"{count.count} {count.reason}" for count in refused)
            detail = scrub_detail(refused[0].detail, CleaningPolicy())
            raise SettingsError(f"workload '{name}' has no usable record; all were refused: {reasons}. {detail}")
        if not found:
            listed = ", ".join(sorted(known)) or "none yet; `flywheel ingest FILE` adds some"
            raise SettingsError(f"unknown workload '{name}'. In the trace store: {listed}.")
        chosen += found
    return tuple(chosen)


def current_plan(
    instance: DagsterInstance, flywheel: Flywheel, given_up: Collection[Attempt] = (), about: OneTurn | None = None
) -> Plan:
    """What is stale now, after registering new workloads as partitions; `about` shows a turn the records it began with."""
    summaries = flywheel.traces.workloads()
    observe_summaries(instance, summaries)
    heard = Announcements().latest(instance)
    state = flywheel.state(announced=heard, summaries=summaries)
    shown = state if about is None else about.shown(flywheel, state)
    return plan(shown, given_up=frozenset(given_up))


def new_flywheel_run() -> str:
    """An id for one turn of the loop: a tag of every Dagster run of that turn."""
    return uuid.uuid4().hex[:12]


def turn(
    instance: DagsterInstance,
    flywheel: Flywheel,
    workers: Workers,
    choice: Choice,
    say: Say,
    *,
    flywheel_run: str | None = None,
) -> RunReport:
    """One turn of the flywheel: execute the plan until nothing is left that can be done.

    Never tries the same attempt twice, however it ended. Whatever interrupts it ends the workers first. `flywheel_run` is
    the id of the turn where something else carries it already.
    """
    started = time.monotonic()
    report = RunReport(flywheel_run or new_flywheel_run(), choice.workloads)
    report.buried = bury_dead_runs(instance)
    flywheel.telemetry.bury(report.buried)
    for run_id in report.buried:
        say(f"run {run_id[:8]} was killed; its work is taken up again")
    flywheel.artifacts.sweep_drafts()
    given_up: set[Attempt] = set()
    running: dict[Batch, float] = {}
    about = OneTurn()
    tried: set[Attempted] = set()
    try:
        while True:
            whole = current_plan(instance, flywheel, given_up, about)
            current = _narrowed(whole, choice)
            startable = _startable(current, running, flywheel, tried)
            if not startable and not running:
                startable = [batch for batch in _catalog_alone(whole, report) if attempt(batch) not in tried]
            for batch in startable:
                tried.add(attempt(batch))
                say(f"{batch.partition}: {', '.join(batch.assets)} ({batch.items[0].reason})")
                workers.start(batch, report.flywheel_run)
                running[batch] = time.monotonic()
            if not running:
                break
            for batch, succeeded in workers.wait():
                report.seconds[batch.name] = report.seconds.get(batch.name, 0.0) + time.monotonic() - running.pop(batch)
                about.settle(batch.partition, batch.assets)
                given_up |= settle(instance, flywheel, batch, succeeded, report)
    finally:
        if running:
            say("interrupted: ending training and servers ...")
            announce_cancelling(instance, report.flywheel_run)
            workers.stop()
    report.holes = tuple(hole for hole in current.holes if choice.allows_hole(hole) and about.includes(hole.partition))
    report.left = current.items
    for batch in batches(current, untrained=untrained(flywheel.settings)):
        if attempt(batch) in tried and not any(name_of(item) in report.failures for item in batch.items):
            # Never seen by itself; but a loop without end would be the worst way to learn of it.
            reason = (
                f"its run ended, and it is still to be made ({batch.items[0].reason}); its log in the Dagster UI says more"
            )
            report.failures[name_of(batch.items[0])] = reason
    report.arrived = tuple(slug for slug in about.arrived(flywheel) if not choice.workloads or slug in choice.workloads)
    report.wall_s = time.monotonic() - started
    return report


def _catalog_alone(whole: Plan, report: RunReport) -> list[Batch]:
    """The catalog, where something was decided in this turn while other workloads, not asked for, are still stale.

    The catalog says what is decided now; it must not wait until everybody else is up to date.
    """
    item = whole.item((CATALOG, EVERYTHING))
    decided = any(name.startswith(f"{DECISION} of ") for name in report.materialized)
    if item is None or not decided or name_of(item) in report.materialized:
        return []
    return [Batch(EVERYTHING, Lane.VERDICT, (item,))]


def _narrowed(current: Plan, choice: Choice) -> Plan:
    """The plan without what was not asked for, nor what waits for that."""
    kept: list[PlanItem] = []
    planned = {item.target for item in current.items}
    for item in current.items:
        reachable = {other.target for other in kept}
        if choice.allows(item) and all(target in reachable or target not in planned for target in item.waits_for):
            kept.append(item)
    return Plan(tuple(kept), current.holes)


def _startable(current: Plan, running: Collection[Batch], flywheel: Flywheel, tried: Collection[Attempted]) -> list[Batch]:
    """What may start beside what runs: free threads, and one training at a time on this machine (a cluster queues them)."""
    found: list[Batch] = []
    settings = flywheel.settings
    in_cluster = settings.platform == "nemo"
    room = (settings.nemo if in_cluster else settings.local).parallel_runs - len(running)
    training = any(batch.lane is Lane.CUSTOMIZE for batch in running)
    possible = batches(current, busy=[batch.identity for batch in running], untrained=untrained(settings))
    if in_cluster:
        # Lanes of one cell next to each other: they share a deployment, and one that waits for room would start it twice.
        possible.sort(key=lambda batch: batch.partition)
    for batch in (batch for batch in possible if attempt(batch) not in tried):
        if room <= len(found):
            break
        if batch.lane is Lane.CUSTOMIZE and not in_cluster:
            if training:
                continue
            training = True
        found.append(batch)
    return found


def describe_item(item: PlanItem) -> dict[str, str | None]:
    """One planned item, JSON-ready, for `flywheel run --dry-run --json`."""
    scope = scope_of(item.asset)
    return {
        "asset": item.asset,
        "workload": item.partition.workload or None if scope is not Scope.ALL else None,
        "candidate": item.partition.candidate or None,
        "reason": item.reason,
    }
