"""The same assets on a NeMo cluster (the test server): what is made there and scored, what is left, what is not redone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.definitions import build_defs
from flywheel_assets.resources.nemo import polling
from flywheel_assets.resources.status import status_of
from flywheel_assets.sensors.janitor import janitor_sensor
from tests.assets.conftest import Bench
from tests.nemo.server import NemoServer
from tests.nemo.traffic import KnowsTheTeacher
from tests.nemo.wire import Fault

CELL = Partition("tickets", "meta-small")


class NemoBench(Bench):
    """A bench on the test server, with one NIM."""

    def __init__(self, folder: Path, instance: DagsterInstance, server: NemoServer) -> None:
        super().__init__(folder, instance)
        self.server = server
        customizer = {"target": "meta/small@2.0", "max_seq_length": 1024}
        nim = {"model_name": "meta/small", "gpus": 1, "tag": "1", "customization_enabled": True}
        self.content = {
            "platform": "nemo",
            "nemo": {**server.settings, "retry_s": 5},
            "nims": [{**nim, "customizer_configs": customizer}],
            "split": {"eval_size": 40, "min_total_records": 50},
        }

    @property
    def defs(self) -> dg.Definitions:
        silent = dg.logger(lambda _: __import__("logging").getLogger("silent"))
        return build_defs(self.flywheel.settings, loggers={"console": silent})

    def ingest(self, n: int, workload: str = "tickets", seed: int = 7) -> None:
        super().ingest(n, workload, seed)
        self.server.answer = KnowsTheTeacher(self.folder.glob("*.jsonl"))

    def scores(self) -> Json:
        cell = status_of(self.flywheel)["workloads"]["tickets"]["cells"]["meta-small"]
        return {variant: entry["scores"] for variant, entry in cell.items()}


@pytest.fixture
def server() -> Iterator[NemoServer]:
    with NemoServer() as server:
        server.customizer.targets["meta/small@2.0"] = "meta/small"
        yield server


@pytest.fixture
def nemo(tmp_path: Path, instance: DagsterInstance, server: NemoServer, monkeypatch: pytest.MonkeyPatch) -> NemoBench:
    monkeypatch.setattr(polling, "SHORTEST_S", 0.1)
    bench = NemoBench(tmp_path, instance, server)
    bench.ingest(120)
    return bench


def test_records_become_a_decision_and_nothing_is_left_running(nemo: NemoBench) -> None:
    report = nemo.turn()
    assert report.ok, (report.failures, report.holes)
    scores = nemo.scores()
    assert scores["base"]["function_name"]["value"] == 0.0
    assert scores["customized"]["function_name_and_args"]["value"] == 1.0
    status = status_of(nemo.flywheel)["workloads"]["tickets"]
    assert status["decision"]["verdict"] in ("promote", "keep", "inconclusive")
    assert nemo.server.left() == []
    assert nemo.flywheel.artifacts.require(graph.ADAPTER, CELL).summary["remote_model"].startswith("dfwbp/meta-small@")
    again = nemo.turn()
    assert (again.ok, again.materialized) == (True, [])


def test_the_report_keeps_nemos_own_scores_and_they_agree_with_ours(nemo: NemoBench) -> None:
    nemo.turn()
    for variant in (Variant.BASE, Variant.CUSTOMIZED):
        summary = nemo.flywheel.artifacts.require(graph.EVALS[variant], CELL).summary
        theirs = summary["served"]["remarks"]["nemo_scores"]
        ours = summary["scores"]
        # Over all rows theirs, ours where a call is expected: the same rows, where every row expects one.
        name = "custom-tool-calling.tool-calling-accuracy.function_name_accuracy"
        if ours["nemo_function_name"]["n"] == summary["n"]:
            assert theirs[name] == pytest.approx(ours["nemo_function_name"]["value"])
        assert summary["served"]["remarks"]["evaluation_job"].startswith("eval-")


def test_asked_from_here_the_scores_are_the_same_and_latency_is_known(nemo: NemoBench) -> None:
    nemo.turn()
    by_jobs = nemo.scores()
    nemo.content["nemo"]["evaluation"] = "direct"
    report = nemo.turn()
    assert report.ok, report.failures
    assert nemo.scores() == by_jobs
    latency = nemo.flywheel.artifacts.require(graph.EVALS[Variant.CUSTOMIZED], CELL).summary["latency_ms"]
    assert latency["p50"] > 0
    assert len(nemo.server.customizer.jobs) == 1
    assert nemo.server.left() == []


def test_a_failed_training_leaves_the_base_evaluation_alone_and_nothing_running(nemo: NemoBench) -> None:
    nemo.server.customizer.fails["meta/small"] = "CUDA out of memory"
    report = nemo.turn()
    assert "CUDA out of memory" in report.failures["adapter of tickets x meta-small"]
    states = status_of(nemo.flywheel)["workloads"]["tickets"]["cells"]["meta-small"]
    assert (states["base"]["state"], states["customized"]["state"]) == ("ok", "failed")
    assert nemo.server.left() == []


def test_one_deployment_serves_a_whole_run(nemo: NemoBench) -> None:
    nemo.turn()
    # Inline runs follow each other: one deployment for the lane of the evaluations, one for that of the training.
    assert len(nemo.server.asked("POST", "model-deployments")) == 2


def test_a_judge_of_the_cluster_is_up_before_its_candidates_and_ended_with_them(nemo: NemoBench) -> None:
    nemo.content["evaluation"] = {"tool_eval_type": "judge"}
    nemo.content["nemo"] |= {"gpu_budget": 2, "judge": {"type": "local", "model_name": "meta/judge", "tag": "1", "gpus": 1}}
    nemo.server.judge = lambda body: "RATING: 1"
    report = nemo.turn()
    assert report.ok, report.failures
    for variant in Variant:
        summary = nemo.flywheel.artifacts.require(graph.EVALS[variant], CELL).summary
        assert summary["served"]["remarks"]["nemo_scores"]["llm-as-judge.correctness.rating"] == 1.0
        assert "function_name_and_args" in summary["scores"]
    # In each run, that of the training included: a run that held a candidate and waited for the judge could wait for ever.
    asked = [call.body["name"] for call in nemo.server.asked("POST", "model-deployments")]
    assert asked == ["meta-judge", "meta-small"] * 2
    assert nemo.server.left() == []


def test_the_janitor_ends_what_a_dead_run_left(nemo: NemoBench, instance: DagsterInstance) -> None:
    nemo.server.faults = [Fault(500, path="model-deployments", method="DELETE", times=99)]
    nemo.turn()
    assert nemo.server.left()
    nemo.server.faults.clear()
    nemo.content["nemo"]["adopt_minutes"] = 0
    context = dg.build_sensor_context(instance=instance, resources={"flywheel": nemo.flywheel})
    result = janitor_sensor()(context)
    assert isinstance(result, dg.SkipReason)
    assert "1 things ended in the cluster" in str(result.skip_message)
    assert nemo.server.left() == []


def test_no_key_reaches_anything_that_is_kept(nemo: NemoBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEMO_KEY", "s3cret-cluster-key")
    nemo.server.key = "s3cret-cluster-key"
    nemo.content["nemo"]["api_key_env"] = "NEMO_KEY"
    assert nemo.turn().ok
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"s3cret-cluster-key" not in path.read_bytes(), path
    assert "s3cret-cluster-key" not in json.dumps([call.body for call in nemo.server.calls])
