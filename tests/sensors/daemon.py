"""The daemon by hand: ticks of `reconcile` as Dagster makes them, its cursor kept, and the runs that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field

import dagster as dg

from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.runs import BATCH_TAG
from tests.assets.conftest import Bench


@dataclass
class Daemon:
    """Ticks and executes, one run at a time. A run key is used once for ever.

    `flywheel` is what the code server read when it started, where that is not what the settings say now.
    """

    bench: Bench
    flywheel: Flywheel | None = None
    cursor: str | None = None
    keys: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.bench.instance,
            instance_ref=self.bench.instance.get_ref(),
            definitions=self.bench.defs,
            resources={"flywheel": self.flywheel or self.bench.flywheel},
            cursor=self.cursor,
        )
        result = self.bench.defs.resolve_sensor_def("reconcile")(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        self.cursor = context.cursor
        return result

    def requests(self) -> list[dg.RunRequest]:
        result = self.tick()
        return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []

    def skipped(self) -> str:
        result = self.tick()
        assert isinstance(result, dg.SkipReason), result
        return str(result.skip_message)

    def execute(self, request: dg.RunRequest) -> None:
        assert request.run_key is not None and request.run_key not in self.keys, f"asked for twice: {request.run_key}"
        self.keys.add(request.run_key)
        self.asked.append(request.tags[BATCH_TAG])
        executed(self.bench, request, may_fail=True)


def executed(bench: Bench, request: dg.RunRequest, *, may_fail: bool) -> None:
    """Execute the run that a tick asked for, as the daemon launches it; one that fails raises unless it may."""
    bench.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=bench.instance,
        asset_selection=list(request.asset_selection or ()),
        partition_key=request.partition_key,
        run_config={"loggers": {"console": {}}},
        tags=request.tags,
        raise_on_error=not may_fail,
    )
