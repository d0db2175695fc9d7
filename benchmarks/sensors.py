"""How long one tick of the `reconcile` sensor takes while a backlog of new workloads is worked off."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.figure import figure
from benchmarks.synthetic import record_lines
from flywheel_assets.core.graph import BASE, Partition
from flywheel_assets.definitions import build_defs
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.settings import parse_settings

RECORDS = 100_000
WORKLOADS = 50
TARGET_S = 20.0
# Nobody is examined: what is timed is the sensor and what it starts, not a model.
_SETTINGS: dict[str, Any] = {
    "candidates": [{"id": "nobody", "model": "http://127.0.0.1:9/v1", "engine": "openai", "workloads": []}],
}


_silent = dg.logger(lambda _: logging.Logger("silent", logging.CRITICAL))


def bench_backlog(records: int = RECORDS, workloads: int = WORKLOADS) -> dict[str, object]:
    """The longest tick, in seconds, until nothing is left to start; the runs asked for are executed between ticks."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        flywheel = Flywheel.at_home(parse_settings(_SETTINGS, home=Path(folder) / "home", root=Path(folder)))
        for number in range(workloads):
            log = Path(folder) / "log.jsonl"
            log.write_text("".join(record_lines(records // workloads, seed=number, workload=f"workload-{number}")))
            ingest([log], flywheel.traces)
        defs = build_defs(flywheel.settings, loggers={"console": _silent})
        sensor, job = defs.resolve_sensor_def("reconcile"), defs.resolve_implicit_global_asset_job_def()
        longest = 0.0
        while True:
            with dg.build_sensor_context(instance=instance, definitions=defs, resources={"flywheel": flywheel}) as context:
                started = time.perf_counter()
                result = sensor(context)
                longest = max(longest, time.perf_counter() - started)
            if not isinstance(result, dg.SensorResult):
                break
            for request in result.run_requests or ():
                # A decision without candidates fails, as it should; what counts is asked below.
                job.execute_in_process(
                    instance=instance,
                    asset_selection=list(request.asset_selection or ()),
                    partition_key=request.partition_key,
                    run_config={"loggers": {"console": {}}},
                    tags=request.tags,
                    raise_on_error=False,
                )
        done = [flywheel.artifacts.current(BASE, Partition(slug)) is not None for slug in flywheel.workloads()]
    if done.count(True) != workloads:
        raise RuntimeError(f"{done.count(True)} of {workloads} workloads have datasets: the figure would mean nothing")
    value = round(longest, 2)
    return figure("sensor_backlog_max_tick_s", value, "s", "lower", TARGET_S)
