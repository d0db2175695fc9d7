"""Examination: everything that flywheel.yaml names is looked at once."""

from __future__ import annotations

from flywheel_assets.resources.doctor.finding import Finding
from flywheel_assets.resources.doctor.machine import cluster, machine, packages, sources, stores
from flywheel_assets.resources.doctor.models import candidates, judges
from flywheel_assets.resources.doctor.outlets import alerts, hub, langfuse, mlflow
from flywheel_assets.settings import Settings


def examine(settings: Settings) -> list[Finding]:
    """Look at everything flywheel.yaml names. Reaches out to configured endpoints only."""
    return [
        *machine(settings),
        *packages(settings),
        *stores(settings),
        *sources(settings),
        *cluster(settings),
        *candidates(settings),
        *judges(settings),
        *hub(settings),
        *alerts(settings),
        *langfuse(settings),
        *mlflow(settings),
    ]
