"""Janitor: ends what killed runs left behind. `finally` blocks do this for every other ending."""

from contextlib import suppress

import dagster as dg

from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.latest import latest
from flywheel_assets.resources.nemo.sweep import sweep
from flywheel_assets.resources.runs import bury_dead_runs
from flywheel_assets.settings import SettingsError


def janitor_sensor() -> dg.SensorDefinition:
    """The `janitor` sensor."""

    @dg.sensor(
        name="janitor",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Reports runs of dead processes as failed, frees their pool slots, removes their drafts, and ends what "
        "they left in a cluster.",
    )
    def janitor(context: dg.SensorEvaluationContext, flywheel: dg.ResourceParam[Flywheel]) -> dg.SkipReason:
        """Must never touch what belongs to another host: only this one can prove that a process here is dead."""
        # What a typing error in the file says, `reconcile` says; cleaning up needs no news.
        with suppress(SettingsError):
            flywheel = latest(flywheel)
        buried = bury_dead_runs(context.instance)
        flywheel.telemetry.bury(buried)
        drafts = flywheel.artifacts.sweep_drafts()
        settings = flywheel.settings
        # A new run may still take up what a killed one started; only later is it rubbish.
        ended = sweep(settings, context.log.info, min_idle_s=60 * settings.nemo.adopt_minutes, rediscover=True)
        left = f", {len(ended)} things ended in the cluster" if settings.platform == "nemo" else ""
        return dg.SkipReason(f"{len(buried)} dead runs reported, {drafts} abandoned drafts removed{left}.")

    return janitor
