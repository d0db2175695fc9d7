"""Observers: who is told, by the settings. Their clients are imported in the background thread that first needs them."""

from __future__ import annotations

from functools import partial

from flywheel_assets.resources.telemetry.mlflow import mlflow_spec
from flywheel_assets.resources.telemetry.phases import Observer, ObserverSpec
from flywheel_assets.resources.telemetry.watch import Telemetry
from flywheel_assets.settings import Settings

_LANGFUSE = "flywheel_assets.resources.telemetry.langfuse.observer"


def telemetry_of(settings: Settings) -> Telemetry:
    """Everybody whom flywheel.yaml names; nothing is imported, connected or sent before the first phase."""
    specs: list[ObserverSpec] = []
    if settings.telemetry.langfuse.enabled:
        specs.append(ObserverSpec("Langfuse", partial(_langfuse, settings), imports=("langfuse.api", _LANGFUSE)))
    if settings.telemetry.mlflow.enabled:
        specs.append(mlflow_spec(settings))
    return Telemetry(specs, settings.home / "telemetry", settings.telemetry.ui_url)


def _langfuse(settings: Settings) -> Observer:
    from flywheel_assets.resources.telemetry.langfuse.observer import langfuse_observer

    return langfuse_observer(settings)
