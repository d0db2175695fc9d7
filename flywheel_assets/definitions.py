"""Definitions: where everything meets, and the seam for tests.

`build_defs(settings)` makes the whole code location; `defs` is what workspace.yaml loads. Merge the result of
`build_defs` into another code location with `dg.Definitions.merge`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from flywheel_assets.assets.capture import capture_assets
from flywheel_assets.assets.context import context_assets
from flywheel_assets.assets.datasets import dataset_assets
from flywheel_assets.assets.decision import decision_assets
from flywheel_assets.assets.distribution import distribution_assets
from flywheel_assets.assets.evaluation import evaluation_assets
from flywheel_assets.assets.profile import profile_assets
from flywheel_assets.assets.publication import publication_assets
from flywheel_assets.assets.training import training_assets
from flywheel_assets.jobs import flywheel_jobs
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.platform import LocalPlatform
from flywheel_assets.resources.telemetry.mlflow.tracking import RESOURCE, tracking_resource
from flywheel_assets.sensors.alerts import alert_sensors
from flywheel_assets.sensors.janitor import janitor_sensor
from flywheel_assets.sensors.reconcile import reconcile_sensor
from flywheel_assets.sensors.sources import source_sensors
from flywheel_assets.settings import Settings, load_settings


def build_defs(
    settings: Settings,
    *,
    resource_overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """The assets, checks, sensors and resources for one flywheel.yaml.

    `resource_overrides` replaces resources by name (`flywheel`, `platform`, and `mlflow` where telemetry names it): the seam
    for tests and for other platforms.
    """
    flywheel = Flywheel.at_home(settings)
    resources: dict[str, Any] = {"flywheel": flywheel, "platform": _platform(settings), **_tracking(settings)}
    return dg.Definitions(
        assets=[
            *capture_assets(settings),
            *dataset_assets(settings),
            *profile_assets(settings),
            *context_assets(settings),
            *training_assets(settings),
            *evaluation_assets(settings),
            *decision_assets(settings),
            *publication_assets(settings),
            *distribution_assets(settings),
        ],
        jobs=flywheel_jobs(settings),
        sensors=[
            reconcile_sensor(settings),
            janitor_sensor(),
            *_store_sensors(settings),
            *source_sensors(settings),
            *alert_sensors(settings),
        ],
        resources={**resources, **(resource_overrides or {})},
        # The default executor starts a process a step: 42-58 s for five trivial steps where this one takes 2 s.
        # Heavy work lives in child processes of its own.
        executor=dg.in_process_executor,
        loggers=loggers,
    )


def _platform(settings: Settings) -> Any:
    if settings.platform == "local":
        return LocalPlatform.of(settings)
    # Imported here: whoever works on this machine needs none of it.
    from flywheel_assets.resources.nemo.platform import NemoPlatform

    @dg.resource(description="A NeMo cluster. What a run deployed there is given back when the run ends, however it ends.")
    def nemo_platform(context: dg.InitResourceContext) -> Iterator[NemoPlatform]:
        assert context.log is not None
        with NemoPlatform.of(settings, context.log.info).run() as platform:
            yield platform

    return nemo_platform


def _tracking(settings: Settings) -> dict[str, Any]:
    """MLflow for assets of users, where the flywheel itself is told to use it."""
    return {RESOURCE: tracking_resource(settings)} if settings.telemetry.mlflow.enabled else {}


def _store_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    if settings.trace_store != "elasticsearch":
        return []
    # Imported here: whoever keeps traces in a file needs none of it.
    from flywheel_assets.sensors.elasticsearch_traces import elasticsearch_traces_sensor

    return [elasticsearch_traces_sensor(settings)]


@dg.definitions
def defs() -> dg.Definitions:
    """The code location of this clone: flywheel.yaml at or above the working folder."""
    return build_defs(load_settings())
