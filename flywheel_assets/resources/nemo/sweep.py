"""Sweep: what killed runs left running in a cluster is ended, once nobody is likely to take it up again."""

from __future__ import annotations

from flywheel_assets.resources.nemo.work import Leftover, Say
from flywheel_assets.settings import Settings


def sweep(settings: Settings, say: Say, *, min_idle_s: float) -> list[Leftover]:
    """End what no living run of this flywheel has used for so many seconds; nothing where the platform is another."""
    if settings.platform != "nemo" or not (settings.home / "nemo.sqlite").exists():
        return []
    from flywheel_assets.resources.nemo.v1 import NemoV1

    return NemoV1(settings.nemo, settings.home).sweep(min_idle_s, say)
