"""Sources: where records come from when nobody hands over a file."""

from flywheel_assets.resources.sources.base import (
    CheckedSource,
    Pull,
    PulledRecord,
    PulledReject,
    SourceError,
    SourceStatus,
    TraceSource,
)
from flywheel_assets.resources.sources.collect import Collected, collect
from flywheel_assets.resources.sources.registry import chosen_sources, enabled_sources

__all__ = [
    "CheckedSource",
    "Collected",
    "Pull",
    "PulledRecord",
    "PulledReject",
    "SourceError",
    "SourceStatus",
    "TraceSource",
    "chosen_sources",
    "collect",
    "enabled_sources",
]
