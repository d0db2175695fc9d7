"""Breaker: a service that does not answer, or costs the work too much time, is left alone for a while by every process.

A turn of the loop is some thirty runs, each in a process of its own: without a common memory (in the flywheel home) each of
them would wait for the same dead server again, and nobody would notice one that is slow every time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.json_files import read_json, write_json

# Short enough to notice a restarted server in the same turn, long enough that waiting stays far below 5% of it.
OPEN_S = 300.0
# What the end of a phase may wait: a second is what a healthy service on another continent needs, and in long work more is
# nothing. What is over that adds up, to so much within `OPEN_S`. Together it stays below 5% (bench telemetry_trouble_ratio).
FREE_S, FREE_SHARE = 1.0, 0.02
ALLOWED_S = 4.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """Why each service is left alone, in `folder`; one file a service."""

    folder: Path

    def why_open(self, service: str) -> str | None:
        """Why a service is not to be tried now; None when it is."""
        known = self._known(service)
        if known.get("until", 0) < time.time():
            return None
        return str(known.get("why", "it did not answer"))

    def trip(self, service: str, why: str) -> None:
        """Leave a service alone from now on."""
        self._keep(service, {"until": time.time() + OPEN_S, "why": why})

    def waited(self, service: str, waited_s: float, took_s: float) -> None:
        """Work that took `took_s` seconds waited for a service at its end: leave it alone where that adds up to too much."""
        over = waited_s - max(FREE_S, FREE_SHARE * took_s)
        if over <= 0 or self.why_open(service) is not None:
            return
        now = time.time()
        waits = [wait for wait in self._known(service).get("waits", ()) if wait["at"] > now - OPEN_S]
        waits.append({"at": now, "waited_s": waited_s, "over_s": over})
        if sum(wait["over_s"] for wait in waits) > ALLOWED_S:
            total = sum(wait["waited_s"] for wait in waits)
            self.trip(service, f"work waited {total:.1f} s for it within {OPEN_S / 60:g} minutes")
        else:
            self._keep(service, {"waits": waits})

    def _known(self, service: str) -> Json:
        try:
            known = read_json(self._file(service))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _keep(self, service: str, known: Json) -> None:
        # Not being able to remember costs time in the next process, and nothing else.
        with suppress(OSError):
            write_json(self._file(service), known)

    def _file(self, service: str) -> Path:
        return self.folder / f"{service.lower()}.json"
