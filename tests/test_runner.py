"""A turn ends, whatever becomes of its runs: bodies, checks, descriptions and event writes that fail, and kills."""

from __future__ import annotations

import random
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core.batches import Batch
from flywheel_assets.core.graph import MADE_TOGETHER
from flywheel_assets.core.planner import inputs_of
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.artifacts import Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.runner import Choice, turn
from flywheel_assets.settings import parse_settings
from tests.e2e.own_traffic import write_ticket_records

# More batches than two workloads with two candidates have assets: whoever needs more goes round in circles.
_MOST_BATCHES = 80


class FaultyWorkers:
    """Publishes as bodies do, and fails at any point of it. `faults` is the share of assets at which a run breaks."""

    def __init__(self, instance: DagsterInstance, flywheel: Flywheel, seed: int, faults: float) -> None:
        self.instance, self.flywheel = instance, flywheel
        self.random, self.faults = random.Random(seed), faults
        self.waiting: list[Batch] = []
        self.done: list[Batch] = []

    def start(self, batch: Batch, flywheel_run: str) -> None:
        for body in MADE_TOGETHER:
            # Dagster refuses a part of a body before anything is executed.
            assert body.isdisjoint(batch.assets) or body <= set(batch.assets), batch.assets
        self.waiting.append(batch)

    def wait(self) -> list[tuple[Batch, bool]]:
        batch = self.waiting.pop(0)
        self.done.append(batch)
        assert len(self.done) <= _MOST_BATCHES, [f"{one.name}: {one.assets}" for one in self.done[-8:]]
        return [(batch, all(self._made(batch, name) for name in batch.assets))]

    def stop(self) -> None:
        self.waiting.clear()

    def _made(self, batch: Batch, name: str) -> bool:
        """One asset of a run: its body, its ref, its event. False: the run ended there."""
        fault = self.random.choice(("killed", "body", "refused", "describe", "unsaid")) if self._breaks() else None
        artifacts, partition = self.flywheel.artifacts, batch.partition
        inputs = inputs_of((name, partition), self.flywheel.state(as_read=name != "records"))
        if fault == "killed" or inputs.missing:
            return False
        if fault == "body":
            artifacts.record_failure(name, partition, inputs.key, "it broke", "run")
            return False
        with artifacts.draft() as draft:
            # What the log of looks reads of decisions that were made before there was one.
            (draft.path / "decision.json").write_text('{"evidence": {}}')
            watermark = next((version for source, version in inputs.versions.items() if source.startswith("traces@")), "")
            made = Made(inputs.key, {"watermark": watermark, "records": 1}, "failed" if fault == "refused" else "ok", fault)
            origin = {"dagster_run": "run"}
            artifacts.publish(
                draft, name, partition, made, inputs_key=inputs.key, inputs={}, settings={}, code_version="1", origin=origin
            )
        if fault == "describe":
            return False
        if fault != "unsaid":
            event = dg.AssetMaterialization(
                asset_key(name), partition=partition_key(partition), tags={"dagster/data_version": inputs.key}
            )
            self.instance.report_runless_asset_event(event)
        return True

    def _breaks(self) -> bool:
        return self.random.random() < self.faults


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("records")
    return [write_ticket_records(folder / f"{name}.jsonl", 3, workload=name) for name in ("tickets", "refunds")]


# Not shrunk: an example takes a second, and the seed alone tells little.
@settings(max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), faults=st.sampled_from((0.1, 0.4, 0.8, 1.0)), only=st.booleans())
def test_every_turn_ends_and_a_later_one_without_faults_makes_all(
    seed: int, faults: float, only: bool, tmp_path_factory: pytest.TempPathFactory, records: list[Path]
) -> None:
    folder = tmp_path_factory.mktemp("home")
    for model in ("small.gguf", "tiny.gguf"):
        (folder / model).write_text(model)
    candidates = [{"id": "small", "model": "small.gguf"}, {"id": "tiny", "model": "tiny.gguf"}]
    flywheel = Flywheel.at_home(parse_settings({"candidates": candidates}, home=folder / "home", root=folder))
    ingest(records, flywheel.traces)
    with DagsterInstance.ephemeral() as instance:
        for share in (faults, faults, faults, 0.0):
            workers = FaultyWorkers(instance, flywheel, seed, share)
            choice = Choice(("tickets",)) if only and share else Choice()
            report = turn(instance, flywheel, workers, choice, lambda message: None)
            if share == 0.0:
                assert report.ok and not report.left, (report.failures, report.holes, report.left)
                again = turn(instance, flywheel, workers, Choice(), lambda message: None)
                assert again.ok and not again.materialized
