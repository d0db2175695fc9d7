"""Reconcile: executes the planner's answer, a bounded number of runs at a time.

A sensor and not automation conditions, because a condition sees data versions only: an edited gate, a dead run or a
candidate that ended one tick too late would never be noticed (docs/architecture.md).
"""

import time
from collections.abc import Iterator, Mapping

import dagster as dg
from dagster import DagsterRunStatus

from flywheel_assets.announcements import Announcements
from flywheel_assets.assets.capture import MAX_OBSERVATIONS, observe_summaries
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core.batches import Batch, batches, parse_identity
from flywheel_assets.core.planner import every_failure, plan
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.pacing import paced
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG, FLYWHEEL_RUN_TAG, bury_dead_runs, partition_tags
from flywheel_assets.resources.trace_stores.deadline import bounded
from flywheel_assets.resources.trace_stores.elasticsearch import ElasticsearchUnavailable
from flywheel_assets.settings import Settings

# What may be waited for a trace store that is down: Dagster kills a tick after 60 s, and then nobody reads why.
STORE_BUDGET_S = 30.0
_SHOWN_WORKLOADS = 5

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
        instance = context.instance
        flywheel.telemetry.bury(bury_dead_runs(instance))
        until = time.monotonic() + STORE_BUDGET_S
        try:
            with bounded(STORE_BUDGET_S):
                # Asked for once: what is observed and what is planned with are one state of the store.
                summaries = flywheel.traces.workloads()
                # What is not reported in this tick is in one of the next, and planned with all the same.
                observe_summaries(instance, summaries, most=MAX_OBSERVATIONS, until=until)
                heard = announcements.latest(instance)
                held = paced(flywheel, flywheel.state(announced=heard, summaries=summaries))
        except ElasticsearchUnavailable as error:
            return dg.SkipReason(f"{error} Nothing was started; the next tick looks again.")
        state, bound = held.state, flywheel.settings.automation.max_runs
        unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
        under_way = [run for run in unfinished if BATCH_TAG in run.tags]
        busy = {parse_identity(run.tags[BATCH_TAG]) for run in under_way}
        room = bound - len(under_way)
        todo = batches(plan(state, given_up=every_failure(state)), busy=busy)
        if not todo:
            looked_at = f"{len(state.workloads)} workloads looked at, {len(busy)} runs under way"
            return dg.SkipReason(f"Nothing to start ({looked_at}).{_waiting(held.waiting)}")
        if room <= 0:
            return dg.SkipReason(f"{len(under_way)} runs are under way (at most {bound}); {len(todo)} batches wait.")
        return dg.SensorResult(run_requests=list(_requests(instance, todo[:room])))

    return reconcile


def _waiting(reasons: Mapping[str, str]) -> str:
    shown = [f"{workload}: {reason}" for workload, reason in sorted(reasons.items())[:_SHOWN_WORKLOADS]]
    more = len(reasons) - len(shown)
    return f" New records wait: {'; '.join(shown)}{f'; and {more} more workloads' if more else ''}." if shown else ""


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
