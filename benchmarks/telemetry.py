"""What telling MLflow costs the work: its share of the demo's wall time.

A turn of the loop with the phases of the demo (one workload, two candidates, every variant) is told to a real MLflow server
on this machine; only models are faked, so that minutes of training are not part of the measurement. Counted are the seconds
that the work waits for telemetry at the end of each phase, imports included, and on top of them the CPU seconds of the
threads that tell, as if the work had lacked every one of them: more than the truth, where a core is free. They are divided
by the demo's wall time at its target (`demo_wall_s`), on this machine as it is now: where others keep its cores busy, so
that a CPU second takes `slowness` wall seconds, the demo takes that much longer, too. `peer` has all of these figures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dagster import DagsterInstance

from benchmarks.figure import figure
from flywheel_assets.resources.telemetry.lane import Lane
from flywheel_assets.resources.telemetry.watch import Telemetry, Watch
from tests.assets.conftest import Bench
from tests.mlflow_server import mlflow_server

DEMO_S = 720.0
_PHASES = 15


@dataclass
class Cost:
    """Seconds that the work waited, and CPU seconds of the threads that told; in how many phases, on how slow a machine."""

    waited: float = 0.0
    cpu: float = 0.0
    phases: int = 0
    slowness: float = 1.0

    @property
    def share(self) -> float:
        """Of the demo's wall time."""
        return round((self.waited + self.cpu * self.slowness) / (DEMO_S * self.slowness), 4)


def bench_share() -> dict[str, object]:
    """Told to a server; `peer` is the same told to the default store, a SQLite file that the turn creates."""
    with tempfile.TemporaryDirectory() as folder, mlflow_server(Path(folder)) as url:
        server = _turn({"enabled": True, "tracking_uri": url})
    local = _turn({"enabled": True})
    said = {"waited_s": round(server.waited, 2), "cpu_s": round(server.cpu, 2), "phases": server.phases}
    said |= {"slowness": round(server.slowness, 2)}
    return figure("telemetry_share", server.share, "share", "lower", 0.02, peer={**said, "sqlite": local.share})


def _turn(mlflow: dict[str, Any]) -> Cost:
    before = _slowness()
    with tempfile.TemporaryDirectory() as folder, DagsterInstance.local_temp(folder) as instance, _counted() as cost:
        bench = Bench(Path(folder), instance)
        bench.content["telemetry"] = {"mlflow": mlflow}
        bench.ingest(500)
        report = bench.turn()
    if not report.ok or cost.phases < _PHASES:
        raise RuntimeError(f"no whole turn was told: {cost.phases} phases, {report.failures}")
    cost.slowness = (before + _slowness()) / 2
    return cost


def _slowness() -> float:
    """Wall seconds that a CPU second takes at the moment; 1 where a core is free."""
    began, until = time.perf_counter(), time.thread_time() + 1.0
    while time.thread_time() < until:
        pass
    return max(1.0, time.perf_counter() - began)


@contextmanager
def _counted() -> Iterator[Cost]:
    """Counts what telemetry takes in this process."""
    cost = Cost()
    begin, end, tell = Telemetry.begin, Watch.end, Lane._tell

    def begins(telemetry: Telemetry, phase: Any) -> Watch:
        began = time.perf_counter()
        watch = begin(telemetry, phase)
        cost.waited += time.perf_counter() - began
        cost.phases += 1
        return watch

    def ends(watch: Watch, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        told = end(watch, *args, **kwargs)
        cost.waited += time.perf_counter() - began
        if told.lost:
            raise RuntimeError(f"something was lost: {told.lost}")
        return told

    def tells(lane: Lane) -> None:
        began = time.thread_time()
        tell(lane)
        cost.cpu += time.thread_time() - began

    with patch.object(Telemetry, "begin", begins), patch.object(Watch, "end", ends), patch.object(Lane, "_tell", tells):
        yield cost
