"""Reconcile: executes the planner's answer, a bounded number of runs at a time.

A sensor and not automation conditions, because a condition sees data versions only: an edited gate, a dead run or a
candidate that ended one tick too late would never be noticed (docs/architecture.md).
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus

from flywheel_assets.announcements import Announcements
from flywheel_assets.assets.capture import MAX_OBSERVATIONS, observe_summaries
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.booking import at_work, said_by_the_run
from flywheel_assets.core.batches import Batch, Lane, batches, meanwhile, parse_identity
from flywheel_assets.core.graph import DECISION, EVERYTHING, Partition
from flywheel_assets.core.planner import MOST_KILLS, every_failure, plan
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import untrained
from flywheel_assets.resources.latest import latest
from flywheel_assets.resources.pacing import paced
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG, FLYWHEEL_RUN_TAG, bury_dead_runs, partition_tags
from flywheel_assets.resources.trace_stores.deadline import bounded
from flywheel_assets.resources.trace_stores.elasticsearch import ElasticsearchUnavailable
from flywheel_assets.settings import Settings, SettingsError

# What may be waited for a trace store that is down: Dagster kills a tick after 60 s, and then nobody reads why.
STORE_BUDGET_S = 30.0
_SHOWN_WORKLOADS = 5
# Once to make it, and again where somebody wiped its events or restored a backup; more often is no accident.
MOST_REPEATS = 3
REPEATS_WITHIN = timedelta(hours=1)

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def reconcile_sensor(settings: Settings) -> dg.SensorDefinition:
    """The `reconcile` sensor."""
    announcements = Announcements()
    # Cells of other candidates are no partitions of this code location, and cannot be asked for.
    known = {"", *(candidate.id for candidate in settings.candidates)}

    @dg.sensor(
        name="reconcile",
        asset_selection=dg.AssetSelection.all(),
        minimum_interval_seconds=settings.automation.interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Starts what the planner names as stale: new records, edited settings, new candidates, dead runs.",
    )
    def reconcile(
        context: dg.SensorEvaluationContext, flywheel: dg.ResourceParam[Flywheel]
    ) -> dg.SensorResult | dg.SkipReason:
        """Must never retry a recorded failure by itself (a person does, with `flywheel run` or in the UI) and never start
        the same batch twice while it is under way."""
        try:
            flywheel = latest(flywheel)
        except SettingsError as error:
            return dg.SkipReason(f"{error}\nNothing was started; the next tick looks again.")
        instance = context.instance
        flywheel.telemetry.bury(bury_dead_runs(instance))
        until = time.monotonic() + STORE_BUDGET_S
        unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
        under_way = [run for run in unfinished if BATCH_TAG in run.tags]
        busy = {parse_identity(run.tags[BATCH_TAG]) for run in under_way}
        try:
            with bounded(STORE_BUDGET_S):
                # Asked for once: what is observed and what is planned with are one state of the store.
                summaries = flywheel.traces.workloads()
                # What is not reported in this tick is in one of the next, and planned with all the same.
                observe_summaries(instance, summaries, most=MAX_OBSERVATIONS, until=until)
                heard = announcements.latest(instance)
                held = paced(
                    flywheel,
                    flywheel.state(announced=heard, summaries=summaries),
                    under_way={partition.workload for partition, _ in busy},
                    seen=json.loads(context.cursor) if context.cursor else None,
                )
        except ElasticsearchUnavailable as error:
            return dg.SkipReason(f"{error} Nothing was started; the next tick looks again.")
        context.update_cursor(json.dumps(held.seen, sort_keys=True))
        state, bound = held.state, flywheel.settings.automation.max_runs
        room = bound - len(under_way)
        # What was merely killed is tried again here, too, until `_give_up` ends that.
        current = plan(state, given_up=every_failure(state, but_unfinished=True))
        ready = batches(current, busy=busy, untrained=untrained(flywheel.settings))
        found = [*ready, *(one for one in meanwhile(state, current) if one.identity not in busy)]
        if not any(name == DECISION for name, _ in state.published):
            # A workload that waits for its first records is in the catalog, too; a catalog of nothing else is no news.
            found = [batch for batch in found if batch.partition != EVERYTHING]
        unknown = sorted({batch.partition.candidate for batch in found} - known)
        todo = _longest_waiting_first(flywheel, [batch for batch in found if batch.partition.candidate in known])
        told = f"{_waiting(held.waiting)}{_unknown(unknown)}"
        if not todo:
            looked_at = f"{len(state.workloads)} workloads looked at, {len(busy)} runs under way"
            return dg.SkipReason(f"Nothing to start ({looked_at}).{told}")
        if room <= 0:
            return dg.SkipReason(f"{len(under_way)} runs are under way (at most {bound}); {len(todo)} batches wait.{told}")
        for batch in (lost := [batch for batch in todo if _failed_in_vain(instance, batch)]):
            _give_up(instance, flywheel, batch)
        todo = [batch for batch in todo if batch not in lost]
        idle = [batch for batch in todo if _made_in_vain(instance, batch)]
        if requests := list(_requests(instance, [batch for batch in todo if batch not in idle][:room])):
            return dg.SensorResult(run_requests=requests)
        if lost:
            names = ", ".join(batch.name for batch in lost)
            return dg.SkipReason(
                f"Given up after {MOST_KILLS} runs without a result: {names}. `flywheel run` tries again.{told}"
            )
        return dg.SkipReason(
            f"Nothing was started: runs of {', '.join(batch.name for batch in idle)} ended well {MOST_REPEATS} times within "
            f"the hour, and are still asked for ({idle[0].items[0].reason}). Reload the code location; if that does not "
            f"help, this is a fault worth reporting.{told}"
        )

    return reconcile


def _longest_waiting_first(flywheel: Flywheel, found: list[Batch]) -> list[Batch]:
    """Verdicts first; then by how old the workload's decision is, and what finishes a turn before what begins one.

    Where the machine cannot keep up, every workload gets its turn, whatever its name.
    """

    def decided_at(batch: Batch) -> float:
        decision = flywheel.artifacts.current(DECISION, Partition(batch.partition.workload))
        return 0.0 if decision is None else float(decision.manifest["created_at"])

    return sorted(found, key=lambda batch: (batch.lane is not Lane.VERDICT, decided_at(batch), batch.lane is Lane.DATA))


def _failed_in_vain(instance: dg.DagsterInstance, batch: Batch) -> bool:
    """Whether runs for exactly these inputs keep ending before a body can say why: killed, or out of memory."""
    failed = dg.RunsFilter(tags={BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key}, statuses=[DagsterRunStatus.FAILURE])
    return instance.get_runs_count(filters=failed) >= MOST_KILLS


def _give_up(instance: dg.DagsterInstance, flywheel: Flywheel, batch: Batch) -> None:
    """Write down that what those runs were at cannot be made, for those that wait for it to go on without it."""
    item = at_work(batch.items, said_by_the_run(instance, batch))
    assert item is not None and item.inputs_key is not None, f"nothing of {batch.name} was ready"
    message = f"{MOST_KILLS} runs in a row were killed, or ended without a result; their logs in the Dagster UI say why"
    flywheel.artifacts.record_failure(*item.target, item.inputs_key, message, run_id="")


def _made_in_vain(instance: dg.DagsterInstance, batch: Batch) -> bool:
    """Whether runs for exactly these inputs keep ending well and change nothing: asking once more would be for ever."""
    made = dg.RunsFilter(
        tags={BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key},
        statuses=[DagsterRunStatus.SUCCESS],
        created_after=datetime.now(UTC) - REPEATS_WITHIN,
    )
    return instance.get_runs_count(filters=made) >= MOST_REPEATS


def _waiting(reasons: Mapping[str, str]) -> str:
    shown = [f"{workload}: {reason}" for workload, reason in sorted(reasons.items())[:_SHOWN_WORKLOADS]]
    more = len(reasons) - len(shown)
    return f" New records wait: {'; '.join(shown)}{f'; and {more} more workloads' if more else ''}." if shown else ""


def _unknown(candidates: Sequence[str]) -> str:
    if not candidates:
        return ""
    return (
        f" flywheel.yaml has candidates that this code location does not know yet ({', '.join(candidates)}): reload it "
        "(Deployment, *Reload*), or start `dagster dev` again."
    )


def _requests(instance: dg.DagsterInstance, todo: list[Batch]) -> Iterator[dg.RunRequest]:
    for batch in todo:
        tags = {BATCH_TAG: batch.name, BATCH_KEY_TAG: batch.key}
        # A run_key is used once for ever: a run that died for these inputs must be asked for under another one.
        attempts = instance.get_runs_count(filters=dg.RunsFilter(tags=tags))
        yield dg.RunRequest(
            run_key=f"{tags[BATCH_TAG]}:{batch.key}:{attempts}",
            asset_selection=[asset_key(name) for name in batch.assets],
            partition_key=partition_key(batch.partition),
            tags={**tags, **partition_tags(batch.partition), FLYWHEEL_RUN_TAG: batch.key[:16]},
        )
