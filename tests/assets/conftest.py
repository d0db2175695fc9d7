"""A whole flywheel on a temporary instance: real assets, stores and planner; only training and serving are faked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.booking import RunReport
from flywheel_assets.core.batches import Batch
from flywheel_assets.core.rows import Json
from flywheel_assets.definitions import build_defs
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.run_worker import execute
from flywheel_assets.runner import Choice, turn
from flywheel_assets.settings import parse_settings
from tests.e2e.own_traffic import write_ticket_records
from tests.fake_platform import FakePlatform
from tests.instances import local_instance

SETTINGS: Json = {
    "candidates": [{"id": "small", "model": "small.gguf"}, {"id": "tiny", "model": "tiny.gguf", "derived_from": "small"}],
    "split": {"eval_size": 40, "min_total_records": 50},
}


class InlineWorkers:
    """Executes batches in this process, one at a time: `Workers` of the runner, for tests."""

    def __init__(self, instance: DagsterInstance, defs: dg.Definitions) -> None:
        self._instance, self._defs = instance, defs
        self._waiting: list[tuple[Batch, str]] = []

    def start(self, batch: Batch, flywheel_run: str) -> None:
        self._waiting.append((batch, flywheel_run))

    def wait(self) -> list[tuple[Batch, bool]]:
        batch, flywheel_run = self._waiting.pop(0)
        return [(batch, execute(self._instance, self._defs, batch, flywheel_run))]

    def stop(self) -> None:
        self._waiting.clear()


class Bench:
    """One flywheel, its Dagster instance and its fake platform; settings can be edited between turns."""

    def __init__(self, folder: Path, instance: DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.content: dict[str, Any] = {**SETTINGS}
        self.platform = FakePlatform()
        for model in ("small.gguf", "tiny.gguf"):
            (folder / model).write_text(model)

    @property
    def flywheel(self) -> Flywheel:
        return Flywheel.at_home(parse_settings(self.content, home=self.folder / "home", root=self.folder))

    @property
    def defs(self) -> dg.Definitions:
        silent = dg.logger(lambda _: __import__("logging").getLogger("silent"))
        return build_defs(
            self.flywheel.settings, resource_overrides={"platform": self.platform}, loggers={"console": silent}
        )

    def ingest(self, n: int, workload: str = "tickets", seed: int = 7) -> None:
        path = write_ticket_records(self.folder / f"{workload}-{n}-{seed}.jsonl", n, workload=workload, seed=seed)
        ingest([path], self.flywheel.traces)

    def turn(self, *workloads: str, candidates: tuple[str, ...] = ()) -> RunReport:
        return turn(
            self.instance,
            self.flywheel,
            InlineWorkers(self.instance, self.defs),
            Choice(workloads, candidates),
            lambda message: None,
        )


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with local_instance(tmp_path) as instance:
        yield instance


@pytest.fixture
def bench(tmp_path: Path, instance: DagsterInstance) -> Bench:
    return Bench(tmp_path, instance)
