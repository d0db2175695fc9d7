"""The keys of `telemetry`: who is told about datasets, trainings, evaluations and decisions, besides Dagster."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class MlflowTelemetry(Section):
    """Runs, losses, metrics and registered models in MLflow (docs/mlflow.md). Its credentials come from the environment:
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."""

    enabled: bool = Field(False, description="Whether MLflow is told of every phase.")
    tracking_uri: str | None = Field(
        None,
        min_length=1,
        description="Where runs are kept; null: MLFLOW_TRACKING_URI, else a SQLite file under FLYWHEEL_HOME.",
    )
    experiment: str = Field(
        "flywheel/{workload}",
        pattern=r"^[^{}']*\{workload\}[^{}']*$",
        max_length=300,
        description="Name of a workload's experiment.",
    )
    registered_model: str | None = Field(
        "flywheel-{workload}",
        pattern=r"^[^{}/:'%]*\{workload\}[^{}/:'%]*$",
        max_length=150,
        description="Name of a workload's registered model; null: nothing is registered.",
    )
    ui_url: str = Field(
        "http://localhost:5000",
        description="Where `mlflow ui` shows a store that is no server: what links to its runs begin with.",
    )


class TelemetrySettings(Section):
    """Traces and runs in other systems. They never fail or hold up a run: what cannot be told is counted and said."""

    ui_url: str = Field("http://localhost:3000", description="Where Dagster's UI is, for links that lead back to a run.")
    mlflow: MlflowTelemetry = MlflowTelemetry()
