"""Elasticsearch traces: notices new records, tick by tick, and tells Dagster where each workload stands.

A sensor of its own, although `reconcile` observes too: it shows arrivals in the UI without starting anything, and a tick
that finds nothing new costs one request. What has to run because of the new records is for `reconcile` to say.
"""

import json
import time
from datetime import UTC, datetime

import dagster as dg

from flywheel_assets.assets.capture import MAX_OBSERVATIONS, observe_summaries
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.latest import latest
from flywheel_assets.resources.trace_stores.deadline import bounded
from flywheel_assets.resources.trace_stores.elasticsearch import (
    ElasticsearchTraceStore,
    ElasticsearchUnavailable,
    Pulsing,
)
from flywheel_assets.settings import Settings, SettingsError

# A tick has 60 s before Dagster kills it without a trace; 20 s leaves room for a slow event log.
TICK_BUDGET_S = 20.0


def elasticsearch_traces_sensor(settings: Settings) -> dg.SensorDefinition:
    """The `elasticsearch_traces` sensor."""

    @dg.sensor(
        name="elasticsearch_traces",
        minimum_interval_seconds=settings.automation.interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Observes new records in Elasticsearch: registers workloads, reports how far each one goes.",
    )
    def elasticsearch_traces(context: dg.SensorEvaluationContext, flywheel: dg.ResourceParam[Flywheel]) -> dg.SkipReason:
        """Must never start a run, and never move its cursor before everything it stands for is in the event log: a tick that
        raises half-way is simply repeated, and reports nothing twice."""
        try:
            store = latest(flywheel).traces
        except SettingsError as error:
            return dg.SkipReason(str(error))
        if not isinstance(store, Pulsing):
            return dg.SkipReason("Records are not in Elasticsearch (trace_store in flywheel.yaml).")
        began = time.monotonic()
        try:
            with bounded(TICK_BUDGET_S):
                pulse = store.pulse()
                before = json.loads(context.cursor) if context.cursor else {}
                if before.get("token") == pulse.token:
                    return dg.SkipReason(
                        f"Nothing new in {pulse.index} since {before['since']}"
                        f" ({before['workloads']:,} workloads, {before['records']:,} records)."
                    )
                if isinstance(store, ElasticsearchTraceStore):
                    store.adopt()
                summaries = store.workloads()
        except ElasticsearchUnavailable as error:
            return dg.SkipReason(f"{error} The next tick goes on where this one stopped.")
        observed = observe_summaries(context.instance, summaries, most=MAX_OBSERVATIONS, until=began + TICK_BUDGET_S)
        if not observed.complete:
            return dg.SkipReason(
                f"{len(observed.moved):,} workloads of {pulse.index} have new records; more wait for the next tick."
            )
        records = sum(summary.count for summary in summaries)
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        context.update_cursor(
            json.dumps({"token": pulse.token, "since": since, "workloads": len(summaries), "records": records})
        )
        names = ", ".join(observed.moved[:5]) + (", ..." if len(observed.moved) > 5 else "")
        found = f"New records in {len(observed.moved):,} workloads: {names}." if observed.moved else "All of it was known."
        return dg.SkipReason(f"{pulse.index}: {len(summaries):,} workloads, {records:,} records. {found}")

    return elasticsearch_traces
