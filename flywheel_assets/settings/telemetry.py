"""The keys of `telemetry`: who is told about datasets, trainings, evaluations and decisions, besides Dagster."""

from __future__ import annotations

from pydantic import Field

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


class TelemetrySettings(Section):
    """Traces and runs in other systems. They never fail or hold up a run: what cannot be told is counted and said."""

    ui_url: str = Field("http://localhost:3000", description="Where Dagster's UI is, for links that lead back to a run.")
    langfuse: LangfuseTelemetry = LangfuseTelemetry()
