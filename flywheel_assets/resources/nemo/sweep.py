"""Sweep: what killed runs left running in a cluster is ended, once nobody is likely to take it up again."""

from __future__ import annotations

from flywheel_assets.resources.nemo.work import Leftover, Say
from flywheel_assets.settings import Settings

# A sensor has a minute for all it does; what cannot be reached now stays for the next sweep.
_PATIENCE_S = 5.0


def sweep(settings: Settings, say: Say, *, min_idle_s: float, rediscover: bool = False) -> list[Leftover]:
    """End what no living run of this flywheel has used for so many seconds; nothing where the platform is another.

    `rediscover` asks the cluster too, for what a lost ledger forgot.
    """
    if settings.platform != "nemo" or not (rediscover or (settings.home / "nemo.sqlite").exists()):
        return []
    from flywheel_assets.resources.nemo.v1 import NemoV1

    hurried = {"retry_s": min(settings.nemo.retry_s, _PATIENCE_S), "request_timeout_s": _PATIENCE_S}
    return NemoV1(settings.nemo.model_copy(update=hurried), settings.home).sweep(min_idle_s, say, rediscover=rediscover)
