"""The Dagster resource `mlflow`, for assets of users: dagster-mlflow's own, with what it leaves open closed.

An asset that asks for it (`required_resource_keys={"mlflow"}`) gets all of MLflow's functions on a run of its Dagster run,
in the tracking store of the flywheel, under the tag by which the flywheel's own runs are found too. dagster-mlflow ends that
run when the last op of the job's topology succeeds, which in a job of assets may be one that did not run: here it ends with
the resource, that is with the Dagster run. A `kill -9` is buried with the flywheel's own runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg

from flywheel_assets.resources.telemetry.mlflow.address import TRACKING_URI_VARIABLE, address_of
from flywheel_assets.resources.telemetry.mlflow.spec import IMPORTING
from flywheel_assets.settings import Settings

RESOURCE = "mlflow"
# The experiment of whatever users log; no workload's slug begins like this.
_OF_USERS = "_assets"


def tracking_resource(settings: Settings) -> dg.ResourceDefinition:
    """`mlflow_tracking` with the flywheel's tracking store as default; its configuration may say otherwise."""
    address = address_of(settings)
    experiment = settings.telemetry.mlflow.experiment.format(workload=_OF_USERS)

    @dg.resource(
        config_schema={
            "experiment_name": dg.Field(str, default_value=experiment, description="MLflow experiment of the run."),
            "mlflow_tracking_uri": dg.Field(str, is_required=False, description="Default: that of the flywheel."),
            "parent_run_id": dg.Field(str, is_required=False, description="MLflow run that this one is nested in."),
            "mlflow_run_id": dg.Field(str, is_required=False, description="MLflow run to go on with."),
            "env": dg.Field(dict, default_value={}, description="Environment variables for MLflow."),
            "env_to_tag": dg.Field([str], is_required=False, description="Environment variables to keep as tags."),
            "extra_tags": dg.Field(dict, default_value={}, description="Further tags."),
        },
        description="MLflow for your own assets: one run a Dagster run, beside the flywheel's own (docs/mlflow.md).",
    )
    def mlflow(context: dg.InitResourceContext) -> Iterator[Any]:
        # Not in the configuration's default: it may hold a password, and the launchpad shows defaults.
        uri = context.resource_config.get("mlflow_tracking_uri") or address.uri
        if address.local is not None and uri == address.uri:
            address.local.mkdir(parents=True, exist_ok=True)
        yield from _tracking(context, uri)

    return mlflow


def _tracking(context: dg.InitResourceContext, uri: str) -> Iterator[Any]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with IMPORTING:
        # Imported here: it imports MLflow, which takes seconds, and is used by runs that ask for it.
        import mlflow
        from dagster_mlflow.resources import MlFlow

    before = os.environ.get(TRACKING_URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    yield MlFlow(context)
    status = "FAILED" if _has_failed(context) else "FINISHED"
    # The asset may have nested others in it; they end by the same word.
    while mlflow.active_run() is not None:
        mlflow.end_run(status)
    # MLflow has written the URI into the environment; the next run of this process may be another flywheel's.
    os.environ.pop(TRACKING_URI_VARIABLE, None)
    if before is not None:
        os.environ[TRACKING_URI_VARIABLE] = before


def _has_failed(context: dg.InitResourceContext) -> bool:
    """Whether a step of the Dagster run failed: a resource is torn down without being told how it went."""
    if context.instance is None or context.run is None:
        return False
    failed = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    return bool(context.instance.get_records_for_run(context.run.run_id, of_type=failed, limit=1).records)
