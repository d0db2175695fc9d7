"""How the flywheel gets its MLflow observer: in the background, when it is first needed."""

from __future__ import annotations

import threading
from functools import partial

from flywheel_assets.resources.telemetry.mlflow.address import address_of
from flywheel_assets.resources.telemetry.phases import Observer, ObserverSpec
from flywheel_assets.settings import Settings

MLFLOW = "MLflow"
# The module that imports MLflow itself.
STORES = "flywheel_assets.resources.telemetry.mlflow.stores"
# Two threads that import MLflow at once deadlock in its circular imports, and Python ends one of them with an error.
IMPORTING = threading.Lock()


def mlflow_spec(settings: Settings) -> ObserverSpec:
    """MLflow as flywheel.yaml describes it; nothing is imported before it is made."""
    return ObserverSpec(MLFLOW, partial(_made, settings), imports=(STORES,))


def _made(settings: Settings) -> Observer:
    with IMPORTING:
        # Imported here: this is the import that takes seconds.
        from flywheel_assets.resources.telemetry.mlflow.observer import MlflowObserver

    return MlflowObserver(settings, address_of(settings))
