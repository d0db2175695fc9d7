"""MLflow for assets of users, through dagster-mlflow: their runs end as their Dagster run does."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from tests.assets.conftest import Bench
from tests.mlflow_server import client_of


@dg.asset(required_resource_keys={"mlflow"})
def report(context: dg.AssetExecutionContext) -> None:
    tracking = context.resources.mlflow
    tracking.log_metric("rows", 3)
    with tracking.start_run(nested=True, run_name="inner"):
        tracking.log_params({"rate": 1})


@dg.asset(deps=[report], required_resource_keys={"mlflow"})
def broken(context: dg.AssetExecutionContext) -> None:
    context.resources.mlflow.start_run(nested=True, run_name="left open")
    raise RuntimeError("no")


def runs_of(bench: Bench, dagster_run: str) -> dict[str, Any]:
    client = client_of(f"sqlite:///{bench.folder}/home/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("flywheel/_assets").experiment_id
    own = client.search_runs([experiment], f"tags.dagster_run_id = '{dagster_run}'")
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{own[0].info.run_id}'")
    return {"own": own[0], **{run.info.run_name: run for run in nested}}


def test_a_user_s_asset_logs_where_the_flywheel_does_and_its_run_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    bench.content["telemetry"] = {"mlflow": {"enabled": True}}
    defs = dg.Definitions.merge(bench.defs, dg.Definitions(assets=[report, broken]))

    def made(*names: str) -> Any:
        job = defs.resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey(name) for name in names]
        config = {"loggers": {"console": {}}}
        return job.execute_in_process(
            instance=bench.instance, asset_selection=selection, run_config=config, raise_on_error=False
        )

    well = made("report")
    assert well.success
    runs = runs_of(bench, well.run_id)
    assert {name: run.info.status for name, run in runs.items()} == {"own": "FINISHED", "inner": "FINISHED"}
    assert runs["own"].data.metrics == {"rows": 3.0}
    badly = made("report", "broken")
    assert not badly.success
    runs = runs_of(bench, badly.run_id)
    assert {name: run.info.status for name, run in runs.items()} == {
        "own": "FAILED",
        "inner": "FINISHED",
        "left open": "FAILED",
    }
    assert os.environ.get("MLFLOW_TRACKING_URI") is None


def test_without_telemetry_there_is_no_such_resource(tmp_path: Path, instance: DagsterInstance) -> None:
    assert "mlflow" not in (Bench(tmp_path, instance).defs.resources or {})
