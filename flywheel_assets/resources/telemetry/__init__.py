"""Telemetry: what the flywheel tells Langfuse and MLflow about its work, without ever failing or holding up that work.

What belongs here: what there is to tell (`phases`), telling it in the background within bounds (`watch`, `lane`, `breaker`),
and who is told (`observers`). What does not: what Dagster shows, which is metadata of the assets themselves.
"""

from flywheel_assets.resources.telemetry.observers import telemetry_of
from flywheel_assets.resources.telemetry.phases import (
    Ended,
    Observer,
    ObserverSpec,
    Phase,
    PhaseKind,
    PhaseStatus,
    Reading,
    Span,
)
from flywheel_assets.resources.telemetry.watch import SILENT, Telemetry, Told, Watch

__all__ = [
    "SILENT",
    "Ended",
    "Observer",
    "ObserverSpec",
    "Phase",
    "PhaseKind",
    "PhaseStatus",
    "Reading",
    "Span",
    "Telemetry",
    "Told",
    "Watch",
    "telemetry_of",
]
