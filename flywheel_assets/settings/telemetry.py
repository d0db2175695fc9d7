"""The keys of `telemetry`: who is told about datasets, trainings, evaluations and decisions, besides Dagster."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from flywheel_assets.settings.section import Section


class LangfuseTelemetry(Section):
    """Traces, scores and dataset runs in Langfuse. Host and keys come from the environment: LANGFUSE_BASE_URL,
    LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY."""

    enabled: bool = Field(False, description="Whether Langfuse is told.")
    rows: bool = Field(
        False,
        description="Whether the content of eval rows leaves this machine: questions, references and answers. Without it "
        "Langfuse gets ids, suite labels, scores and latencies.",
    )
    max_rows: int = Field(
        1000, ge=0, description="Rows of an evaluation that are told one by one, the same ones for every candidate; 0: none."
    )


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
        max_length=300,
        description="Name of a workload's experiment; `{workload}` becomes its slug.",
    )
    registered_model: str | None = Field(
        "flywheel-{workload}",
        max_length=150,
        description="Name of a workload's registered model; null: nothing is registered.",
    )
    ui_url: str = Field(
        "http://localhost:5000",
        description="Where `mlflow ui` shows a store that is no server: what links to its runs begin with.",
    )

    @field_validator("experiment", "registered_model")
    @classmethod
    def _is_a_name_by_workload(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None:
            return None
        rest = name.replace("{workload}", "", 1)
        # MLflow takes neither in a model's name; a quote would end the text of a search, a per cent sign widen it.
        refused = set("{}'%") | (set("/:") if info.field_name == "registered_model" else set())
        if rest == name or refused & set(rest):
            signs = " ".join(sorted(refused))
            raise ValueError(f"{name!r} must hold {{workload}} once, and none of {signs} besides")
        return name


class TelemetrySettings(Section):
    """Traces and runs in other systems. They never fail or hold up a run: what cannot be told is counted and said."""

    ui_url: str = Field("http://localhost:3000", description="Where Dagster's UI is, for links that lead back to a run.")
    langfuse: LangfuseTelemetry = LangfuseTelemetry()
    mlflow: MlflowTelemetry = MlflowTelemetry()
