"""Breaker: a service that did not answer is left alone for a while, by every process of this flywheel home.

A turn of the loop is some thirty runs, each in a process of its own: without a common memory each of them would wait for
the same dead server again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.json_files import read_json, write_json

# Short enough to notice a restarted server in the same turn, long enough that waiting stays far below 5% of it.
OPEN_S = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """Why each service is left alone, in `folder`; one file a service."""

    folder: Path

    def why_open(self, service: str) -> str | None:
        """Why a service is not to be tried now; None when it is."""
        try:
            tripped = read_json(self._file(service))
        except (OSError, ValueError):
            return None
        if not isinstance(tripped, dict) or tripped.get("until", 0) < time.time():
            return None
        return str(tripped.get("why", "it did not answer"))

    def trip(self, service: str, why: str) -> None:
        """Leave a service alone from now on."""
        # Not being able to remember costs time in the next process, and nothing else.
        with suppress(OSError):
            write_json(self._file(service), {"until": time.time() + OPEN_S, "why": why})

    def _file(self, service: str) -> Path:
        return self.folder / f"{service.lower()}.json"
