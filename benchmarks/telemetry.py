"""What telling Langfuse and MLflow costs the work: its share of the demo's wall time, with both well and in trouble.

A turn of the loop with the phases of the demo (one workload, two candidates, every variant) is told over the wire to a real
MLflow server and to the tests' Langfuse server on this machine; only models are faked, so that minutes of training are not
part of the measurement. Instead, for whatever looks at the clock to decide whether a service is to be left alone, each phase
takes its part of the demo's time: a service is tried again as often as it would be in the demo.

Counted are the seconds that the work waits for telemetry at the end of each phase, imports included, and on top of them the
CPU seconds of the threads that tell, as if the work had lacked every one of them: more than the truth, where a core is free.
They are divided by the demo's wall time at its target (`demo_wall_s`), on this machine as it is now: where others keep its
cores busy, so that a CPU second takes `slowness` wall seconds, the demo takes that much longer, too. `peer` has the figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from dagster import DagsterInstance

from benchmarks.figure import figure
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.telemetry.lane import Lane
from flywheel_assets.resources.telemetry.phases import Phase
from flywheel_assets.resources.telemetry.watch import Telemetry, Told, Watch
from tests.assets.conftest import Bench
from tests.faulty_proxy import Fault as ProxyFault
from tests.faulty_proxy import FaultyProxy
from tests.langfuse_server import Fault, LangfuseServer
from tests.mlflow_server import free_port, mlflow_server

Line = dict[str, object]
DEMO_S = 720.0
# A turn of two candidates: seven assets of the workload and of everything, six of each candidate; datasets are one phase.
_PHASES = 18
# Never answered within anybody's patience.
_HANG_S = 60.0


@dataclass
class Cost:
    """Seconds that the work waited, and CPU seconds of the threads that told; in how many phases, on how slow a machine."""

    waited: float = 0.0
    cpu: float = 0.0
    phases: int = 0
    slowness: float = 1.0
    lost: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the demo's wall time."""
        return round((self.waited + self.cpu * self.slowness) / (DEMO_S * self.slowness), 4)

    @property
    def figures(self) -> Line:
        """Where the share comes from."""
        seconds = {"waited_s": round(self.waited, 2), "cpu_s": round(self.cpu, 2)}
        return {"share": self.share, **seconds, "phases": self.phases, "slowness": round(self.slowness, 2)}


@dataclass
class Services:
    """Langfuse, MLflow (`url`), and a proxy before that, through which trouble is made."""

    langfuse: LangfuseServer
    proxy: FaultyProxy
    url: str

    def settings(self, *names: str) -> dict[str, Any]:
        """The settings under which these services are told."""
        both: dict[str, Any] = {
            "langfuse": {"enabled": True, "rows": True},
            "mlflow": {"enabled": True, "tracking_uri": self.url},
        }
        return {name: both[name] for name in names}


@contextmanager
def _services() -> Iterator[Services]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        langfuse = stack.enter_context(LangfuseServer())
        stack.enter_context(patch.dict(os.environ, langfuse.environment))
        url = stack.enter_context(mlflow_server(folder))
        proxy = FaultyProxy(url)
        stack.callback(proxy.close)
        yield Services(langfuse, proxy, url)


def bench_share() -> Line:
    """Both services well; `peer` has the same for each alone, and for MLflow's default store, a SQLite file."""
    with _services() as services:
        both = _turn(services.settings("langfuse", "mlflow"))
        alone = {name: _turn(services.settings(name)).share for name in ("langfuse", "mlflow")}
    alone["mlflow_sqlite"] = _turn({"mlflow": {"enabled": True}}).share
    return figure("telemetry_share", both.share, "share", "lower", 0.02, peer={**both.figures, **alone})


def bench_trouble() -> Line:
    """How much longer the demo takes at worst where both services are in trouble at once; results must be the same."""
    quiet = _turn({})
    found: dict[str, Line] = {}
    for name, make in _TROUBLES.items():
        with _services() as services:
            services.url = services.proxy.url
            make(services)
            cost = _turn(services.settings("langfuse", "mlflow"), troubled=True)
        if cost.made != quiet.made:
            raise RuntimeError(f"results differ where services are {name}")
        found[name] = {**cost.figures, "warnings": len(cost.lost), "such_as": cost.lost[:1]}
    worst = max(1 + float(str(line["share"])) for line in found.values())
    return figure("telemetry_trouble_ratio", round(worst, 4), "ratio", "lower", 1.05, peer=found)


def _down(services: Services) -> None:
    services.langfuse.stop()
    services.url = f"http://127.0.0.1:{free_port()}"


def _refuses(services: Services) -> None:
    services.langfuse.faults.extend([Fault(status=500)] * 10_000)
    services.proxy.fault = _answers_500


def _answers_500(proxy: FaultyProxy, handler: Any, _: Any) -> bool:
    proxy.reply(handler, 500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}')
    return True


def _late_by(seconds: float) -> Callable[[Services], None]:
    """Every answer comes that much later."""

    def late(_proxy: FaultyProxy, _handler: Any, _request: Any) -> bool:
        time.sleep(seconds)
        return False

    def spoil(services: Services) -> None:
        services.langfuse.faults.extend([Fault(status=200, delay_s=seconds)] * 10_000)
        fault: ProxyFault = late
        services.proxy.fault = fault

    return spoil


_TROUBLES: dict[str, Callable[[Services], None]] = {
    "down": _down,
    "500s": _refuses,
    "hanging": _late_by(_HANG_S),
    "late by 1.5 s": _late_by(1.5),
    "late by 0.3 s": _late_by(0.3),
}


def _turn(telemetry: dict[str, Any], *, troubled: bool = False) -> Cost:
    before = _slowness()
    with tempfile.TemporaryDirectory() as folder, DagsterInstance.local_temp(folder) as instance, _counted(troubled) as cost:
        bench = Bench(Path(folder), instance)
        bench.content["telemetry"] = telemetry
        bench.ingest(500)
        report = bench.turn()
        cost.made = _meanings(bench)
    if not report.ok or cost.phases < _PHASES:
        raise RuntimeError(f"no whole turn was told: {cost.phases} phases, {report.failures}")
    if cost.lost and not troubled:
        raise RuntimeError(f"something was lost: {cost.lost}")
    cost.slowness = (before + _slowness()) / 2
    return cost


def _meanings(bench: Bench) -> dict[str, str]:
    """The data version of everything that was made, but of the catalog, which names folders of its home."""
    found = {}
    for node in (node for node in graph.NODES if node.name != graph.CATALOG):
        for partition in (Partition("tickets"), Partition("tickets", "small"), Partition("tickets", "tiny")):
            if partition.scope is node.scope and (ref := bench.flywheel.artifacts.published(node.name, partition)):
                found[f"{node.name} of {partition}"] = ref.data_version
    return found


def _slowness() -> float:
    """Wall seconds that a CPU second takes at the moment; 1 where a core is free."""
    began, until = time.perf_counter(), time.thread_time() + 1.0
    while time.thread_time() < until:
        pass
    return max(1.0, time.perf_counter() - began)


@contextmanager
def _counted(troubled: bool) -> Iterator[Cost]:
    """Counts what telemetry takes in this process, while its clock runs as it does in the demo."""
    cost = Cost()
    begin, end, tell = Telemetry.begin, Watch.end, Lane._tell
    each = DEMO_S / _PHASES

    def begins(telemetry: Telemetry, phase: Phase) -> Watch:
        began = time.perf_counter()
        watch = begin(telemetry, replace(phase, started=phase.started - each))
        cost.waited += time.perf_counter() - began
        cost.phases += 1
        return watch

    def ends(watch: Watch, *args: Any, **kwargs: Any) -> Told:
        began = time.perf_counter()
        told = end(watch, *args, **kwargs)
        cost.waited += time.perf_counter() - began
        cost.lost.extend(map(str, told.lost))
        return told

    def tells(lane: Lane) -> None:
        began = time.thread_time()
        tell(lane)
        cost.cpu += time.thread_time() - began

    clock = SimpleNamespace(time=lambda: time.time() + each * cost.phases)
    with ExitStack() as stack:
        for owner, name, counted in ((Telemetry, "begin", begins), (Watch, "end", ends), (Lane, "_tell", tells)):
            stack.enter_context(patch.object(owner, name, counted))
        if troubled:
            stack.enter_context(patch("flywheel_assets.resources.telemetry.breaker.time", clock))
        yield cost
