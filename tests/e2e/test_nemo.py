"""`flywheel run` on a NeMo cluster (the test server): two workloads, three candidates, every run a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import dagster_dev, dev_log, ended, launch, terminate
from tests.e2e.own_traffic import write_text_records, write_ticket_records
from tests.nemo.customizer import Job
from tests.nemo.evaluator import Job as Evaluation
from tests.nemo.server import NemoServer
from tests.nemo.traffic import KnowsTheTeacher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MODELS = ("meta/small", "meta/tiny", "acme/nano")


@pytest.fixture(scope="module")
def server() -> Iterator[NemoServer]:
    with NemoServer() as server:
        server.customizer.targets = {f"{model}@2.0": model for model in MODELS}
        server.customizer.training_s = 3.0
        server.deployments.deploy_s = server.deployments.sync_s = 1.0
        # No training ends before its cell's base evaluation has begun: whoever trains first and examines then stalls here,
        # on a machine of any speed.
        server.customizer.may_finish = lambda job: bool(base_evaluations(server, job))
        yield server


@pytest.fixture(scope="module")
def turned(server: NemoServer, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone after one `flywheel run`."""

    def on_the_cluster(content: dict[str, Any]) -> None:
        content.pop("candidates")
        content.update(
            platform="nemo", nemo={**server.settings, "parallel_runs": 6, "stall_timeout_minutes": 5}, workloads={}
        )
        content["split"].update(eval_size=30)
        nim = {"gpus": 1, "tag": "1", "customization_enabled": True}
        content["nims"] = [
            {**nim, "model_name": model, "customizer_configs": {"target": f"{model}@2.0"}} for model in MODELS
        ]

    folder = tmp_path_factory.mktemp("nemo")
    clone = Clone.make(folder / "clone", on_the_cluster)
    logs = [
        write_ticket_records(folder / "tickets.jsonl", 90, workload="tickets"),
        write_text_records(folder / "desk.jsonl", 90, workload="desk"),
    ]
    server.answer = KnowsTheTeacher(logs)
    clone.flywheel("ingest", *map(str, logs))
    report = json.loads(clone.flywheel("run", "--json").stdout)
    assert report["ok"], report
    return clone


def test_both_workloads_reach_a_decision_over_all_candidates(turned: Clone, server: NemoServer) -> None:
    status = turned.status()
    assert set(status) == {"tickets", "desk"}
    for workload in status.values():
        assert workload["decision"]["verdict"] in ("promote", "keep", "inconclusive")
        states = {entry["state"] for cell in workload["cells"].values() for entry in cell.values()}
        assert (len(workload["cells"]), states) == (3, {"ok"})
    assert server.left() == []


def test_the_requests_come_in_the_workflows_order(turned: Clone, server: NemoServer) -> None:
    first = {
        path: min(call.at for call in server.asked("POST", path))
        for path in ("/v1/namespaces$", "/v1/datasets$", "customization/jobs$", "evaluation/jobs$")
    }
    assert first["/v1/namespaces$"] < first["/v1/datasets$"] < first["customization/jobs$"]
    assert first["/v1/datasets$"] < first["evaluation/jobs$"]
    for model in MODELS:
        name = model.replace("/", "-")
        deployed = [call.at for call in server.asked("POST", "model-deployments") if call.body["name"] == name]
        ended = [call.at for call in server.asked("DELETE", f"model-deployments/dfwbp/{name}$")]
        evaluations = [job for job in server.evaluator.jobs.values() if base_of(job) == model]
        assert len(evaluations) == 6
        # Every evaluation lies between a start of the deployment and the end that follows.
        for job in evaluations:
            start = max(at for at in deployed if at < job.created)
            assert min(at for at in ended if at > start) > job.created
    for job in server.customizer.jobs.values():
        (examined,) = [one for one in server.evaluator.jobs.values() if model_of(one) == job.model]
        assert job.finished is not None
        assert examined.created > job.finished


def test_base_evaluation_and_customization_of_a_cell_overlap_and_share_a_deployment(
    turned: Clone, server: NemoServer
) -> None:
    for job in server.customizer.jobs.values():
        assert job.finished is not None
        begun = min(one.created for one in base_evaluations(server, job))
        assert begun < job.finished
    # Six trainings, eighteen evaluations: at most one deployment a cell, where each evaluation would start one for itself.
    assert len(server.asked("POST", "model-deployments")) <= 6


def test_several_cells_run_side_by_side(turned: Clone, server: NemoServer) -> None:
    spans = [(job.created, job.finished or 0.0) for job in server.customizer.jobs.values()]
    assert len(spans) == 6
    assert max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans) >= 2
    assert server.deployments.most_gpus >= 2


def test_a_second_run_asks_the_cluster_for_nothing(turned: Clone, server: NemoServer) -> None:
    before = len(server.calls)
    assert json.loads(turned.flywheel("run", "--json").stdout)["materialized"] == []
    assert len(server.calls) == before


def test_ctrl_c_reaches_the_training_in_the_cluster(turned: Clone, server: NemoServer, tmp_path: Path) -> None:
    before = set(server.customizer.jobs)
    server.customizer.may_finish = lambda job: False
    turned.flywheel("ingest", str(write_ticket_records(tmp_path / "more.jsonl", 90, workload="more")))
    with turned.start("run", "more", "--candidate", "meta-small", stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not server.customizer.alive():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    (job,) = (server.customizer.jobs[name] for name in set(server.customizer.jobs) - before)
    assert job.status() == "cancelled"
    assert server.left() == []


def test_terminating_a_run_in_the_ui_cancels_its_job_in_the_cluster(
    turned: Clone, server: NemoServer, tmp_path: Path
) -> None:
    before = set(server.customizer.jobs)
    server.customizer.may_finish = lambda job: False
    turned.flywheel("ingest", str(write_ticket_records(tmp_path / "watched.jsonl", 90, workload="watched")))
    datasets = [["records"], ["workload_profile"], ["datasets", "base"], ["datasets", "train"]]
    with dagster_dev(turned) as url:
        assert ended(url, launch(url, datasets, "watched")) == "SUCCESS", dev_log(turned)
        training = launch(url, [["finetune_decision"], ["adapter"]], "meta-small|watched")
        deadline = time.monotonic() + 300
        while not server.customizer.alive():
            assert time.monotonic() < deadline, dev_log(turned)
            time.sleep(0.1)
        terminate(url, training)
        assert ended(url, training, within_s=120) == "CANCELED"
    (job,) = (server.customizer.jobs[name] for name in set(server.customizer.jobs) - before)
    assert job.status() == "cancelled"
    assert server.left() == []


def model_of(job: Evaluation) -> str:
    return str(job.body["target"]["model"]["api_endpoint"]["model_id"])


def base_of(job: Evaluation) -> str:
    """The base model of what an evaluation examines: itself, or what stands before the @ of a customized one."""
    name = model_of(job).removeprefix("dfwbp/").partition("@")[0]
    return next(model for model in MODELS if name in (model, model.replace("/", "-")))


def base_evaluations(server: NemoServer, job: Job) -> list[Evaluation]:
    """Evaluations of the base model of a training, on the training's workload."""
    return [
        one
        for one in server.evaluator.jobs.values()
        if model_of(one) == base_of_job(server, job) and calls_tools(one) == has_tools(job)
    ]


def base_of_job(server: NemoServer, job: Job) -> str:
    return server.customizer.targets[server.customizer.configs[job.body["config"]]["target"]]


def has_tools(job: Job) -> bool:
    return any(row.get("tools") for row in job.rows)


def calls_tools(job: Evaluation) -> bool:
    return any("tool-calling" in task for task in job.body["config"]["tasks"])
