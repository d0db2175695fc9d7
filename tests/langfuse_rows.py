"""Observations for tests, as the API answers them, and a source that reads them into a store of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel_assets.resources.sources import Collected, collect
from flywheel_assets.resources.sources.langfuse import LangfuseSource
from flywheel_assets.resources.trace_stores import LocalTraceStore
from flywheel_assets.settings import LangfuseSettings
from tests.langfuse_server import LangfuseServer

Json = dict[str, Any]


def iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def row(name: str, started: float, /, **more: Any) -> Json:
    """A finished generation of a trace of its own, in workload `router`, of one second."""
    return {
        "id": f"obs-{name}",
        "traceId": f"trace-{name}",
        "startTime": iso(started),
        "endTime": iso(started + 1),
        "projectId": "proj1",
        "parentObservationId": f"span-{name}",
        "type": "GENERATION",
        "name": "chat",
        "traceName": "support",
        "level": "DEFAULT",
        "environment": "production",
        "input": json.dumps([{"role": "user", "content": f"question {name}"}]),
        "output": json.dumps({"role": "assistant", "content": f"answer {name}"}),
        "metadata": {},
        "model": "gpt-4o-mini",
        "modelParameters": {},
        "tags": ["workload:router"],
        "sessionId": "",
        "userId": "",
        **more,
    }


@dataclass
class Reading:
    """A source, its server and its store, with a clock that tests move. `fresh()` is another process going on."""

    server: LangfuseServer
    store: LocalTraceStore
    settings: LangfuseSettings
    clock: float = field(default_factory=time.time)
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.fresh()

    def fresh(self) -> None:
        self.source = LangfuseSource(self.settings, now=lambda: self.clock)

    def sweep(self, max_records: int | None = None) -> Collected:
        """Collect as a tick does, and keep the cursor as a tick does: only when nothing was raised."""
        collected = collect(
            self.source,
            self.store,
            self.cursor,
            deadline=time.monotonic() + 30,
            max_bytes=10**6,
            max_records=max_records,
        )
        self.cursor = collected.cursor
        return collected

    @property
    def is_late(self) -> bool:
        """Whether the next step is about traces that were scored late."""
        return json.loads(self.cursor or "{}").get("late") is not None

    def step(self, *, late: bool = False) -> Collected:
        """One step; with `late`, one without any time left where it is about traces that were scored late."""
        deadline = time.monotonic() + (0 if late and self.is_late else 30)
        collected = collect(self.source, self.store, self.cursor, deadline=deadline, max_bytes=10**6, max_records=1)
        self.cursor = collected.cursor
        return collected

    def records(self, workload: str = "router") -> dict[str, Json]:
        """Every record of a workload by its id."""
        stored = [record for batch in self.store.read_after(workload, None) for record in batch]
        assert len({record.id for record in stored}) == len(stored)
        return {record.id: json.loads(record.body) for record in stored}


def reading(server: LangfuseServer, folder: Path, **settings: Any) -> Reading:
    """A reading of a server, into a store in `folder`."""
    defaults: Json = {"enabled": True, "lookback_days": 1, "overlap_minutes": 30, "page_size": 3, "calls_per_minute": 10_000}
    return Reading(server, LocalTraceStore(folder / "traces.sqlite"), LangfuseSettings(**{**defaults, **settings}))
