"""The keys of `telemetry`: who is told about datasets, trainings, evaluations and decisions, besides Dagster."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class TelemetrySettings(Section):
    """Traces and runs in other systems. They never fail or hold up a run: what cannot be told is counted and said."""

    ui_url: str = Field("http://localhost:3000", description="Where Dagster's UI is, for links that lead back to a run.")
