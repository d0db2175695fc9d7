"""Source sensors: one for each source that is switched on, called `<name>_traces`."""

import time

import dagster as dg

from flywheel_assets.assets.capture import MAX_OBSERVATIONS, observe_traces
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.latest import latest
from flywheel_assets.resources.sources import TraceSource, collect, enabled_sources
from flywheel_assets.resources.sources.base import title
from flywheel_assets.resources.trace_stores.deadline import bounded
from flywheel_assets.resources.trace_stores.elasticsearch import ElasticsearchUnavailable
from flywheel_assets.settings import Settings, SettingsError

# A tick has 60 s before Dagster kills it without a trace. Steps begin for so long; what the last one brought, after 20 s at
# most, must still be stored and observed within the tick's budget, which also ends the patience with a store that is down.
FETCH_BUDGET_S = 15.0
TICK_BUDGET_S = 30.0
TICK_RECORDS = 20_000


def source_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors of all sources that are switched on."""
    return [source_sensor(source, settings.automation.interval_s) for source in enabled_sources(settings)]


def source_sensor(source: TraceSource, interval_s: int) -> dg.SensorDefinition:
    """The `<name>_traces` sensor of a source; `interval_s` is the time between two ticks."""

    @dg.sensor(
        name=f"{source.name}_traces",
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Fetches new records from {title(source)}, registers their workloads and reports where each stands.",
    )
    def source_traces(context: dg.SensorEvaluationContext, flywheel: dg.ResourceParam[Flywheel]) -> dg.SkipReason:
        """Must never start a run (`reconcile` does) and never move its cursor past what is stored: a tick that raises
        leaves the cursor where it was, and what it had stored is known again next time."""
        began = time.monotonic()
        try:
            now = latest(flywheel)
        except SettingsError as error:
            return dg.SkipReason(str(error))
        asked: TraceSource | None = source
        if now.settings is not flywheel.settings:
            asked = next((one for one in enabled_sources(now.settings) if one.name == source.name), None)
        if asked is None:
            return dg.SkipReason(f"{title(source)} is switched off in flywheel.yaml.")
        try:
            with bounded(TICK_BUDGET_S):
                collected = collect(
                    asked,
                    now.traces,
                    context.cursor,
                    deadline=began + FETCH_BUDGET_S,
                    max_bytes=now.settings.local.max_record_bytes,
                    max_records=TICK_RECORDS,
                )
                observed = observe_traces(context.instance, now, most=MAX_OBSERVATIONS, until=began + TICK_BUDGET_S)
        except ElasticsearchUnavailable as error:
            return dg.SkipReason(f"{error} The next tick goes on where the last complete one stopped.")
        context.update_cursor(collected.cursor)
        waiting = "" if observed.complete else " More workloads are reported in the next tick."
        return dg.SkipReason(collected.sentence() + waiting)

    return source_traces
