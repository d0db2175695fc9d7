"""Phases told to MLflow's own store in a SQLite file, the default; servers in trouble stand at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core.graph import ADAPTER, EVALS, Partition
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.telemetry import Phase, PhaseKind, PhaseStatus, Telemetry, telemetry_of, watch
from flywheel_assets.settings import Settings, parse_settings
from tests.faulty_proxy import FaultyProxy
from tests.mlflow_server import client_of, free_port

BASE = EVALS[Variant.BASE]
REPOSITORY = Path(__file__).parents[3]


def settings(home: Path, **mlflow: Any) -> Settings:
    content = {"candidates": [{"id": "small", "model": "http://small", "engine": "openai"}]}
    telemetry = {"ui_url": "http://dagster", "mlflow": {"enabled": True, **mlflow}}
    return parse_settings({**content, "telemetry": telemetry}, home=home, root=home)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def local(home: Path) -> Telemetry:
    """The default store; made by the first test that tells something, which takes seconds."""
    return telemetry_of(settings(home))


@pytest.fixture
def phase(request: pytest.FixtureRequest) -> Phase:
    """A training in a turn, a workload and a Dagster run that no other test has."""
    name = request.node.name[:60].replace("_", "-").rstrip("-")
    return Phase(
        PhaseKind.TRAINING, ADAPTER, (ADAPTER,), Partition(name, "small"), f"run {name}", f"turn {name}", "url", time.time()
    )


def runs(home: Path, phase: Phase) -> dict[str, Any]:
    client = client_of(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(f"flywheel/{phase.partition.workload}")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_name: run for run in found}


def statuses(home: Path, phase: Phase) -> dict[str, str]:
    return {name: run.info.status for name, run in runs(home, phase).items()}


def trained(folder: Path) -> Artifact:
    (folder / "manifest.json").write_text("{}")
    curve = [{"step": step, "loss": 3.0 - step} for step in (1, 2)]
    manifest = {"data_version": "d", "inputs_key": "k", "state": "ok", "summary": {"loss_curve": curve}}
    return Artifact(ADAPTER, Partition("w", "small"), "v", folder, manifest)


def test_a_run_is_found_by_its_link_and_leads_back(local: Telemetry, home: Path, phase: Phase) -> None:
    told = local.begin(replace(phase, run_url="http://dagster/runs/1")).end(PhaseStatus.FINISHED)
    run = runs(home, phase)[ADAPTER]
    assert told.lost == ()
    assert told.links["MLflow"] == f"http://localhost:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert "(http://dagster/runs/1)" in run.data.tags["mlflow.note.content"]
    assert run.info.end_time > run.info.start_time


def test_the_runs_of_a_cell_are_nested_and_the_cell_s_run_follows_them(local: Telemetry, home: Path, phase: Phase) -> None:
    training = local.begin(phase)
    training.end(PhaseStatus.FINISHED)
    assert statuses(home, phase) == {"adapter": "FINISHED", "small": "FINISHED"}
    evaluation = local.begin(replace(phase, kind=PhaseKind.EVALUATION, name=BASE, assets=(BASE,), dagster_run="another"))
    _until(lambda: statuses(home, phase).get(BASE) == "RUNNING")
    assert statuses(home, phase)["small"] == "RUNNING"
    evaluation.end(PhaseStatus.FAILED, error="the server is gone")
    found = runs(home, phase)
    assert (found["small"].info.status, found[BASE].info.status) == ("FAILED", "FAILED")
    assert found[BASE].data.tags["flywheel/error"] == "the server is gone"
    cell = found["small"].info.run_id
    assert {found[name].data.tags["mlflow.parentRunId"] for name in (ADAPTER, BASE)} == {cell}


def test_another_turn_has_a_run_of_its_own_for_the_cell(local: Telemetry, home: Path, phase: Phase) -> None:
    for turn in ("first", "second"):
        local.begin(replace(phase, flywheel_run=turn)).end(PhaseStatus.FINISHED)
    client = client_of(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(f"flywheel/{phase.partition.workload}").experiment_id
    cells = client.search_runs([experiment], "tags.`flywheel/cell` LIKE '%'")
    assert sorted(run.data.tags["flywheel/run"] for run in cells) == ["first", "second"]


def test_a_judge_is_nested_in_its_evaluation(local: Telemetry, home: Path, phase: Phase) -> None:
    evaluation = local.begin(replace(phase, kind=PhaseKind.EVALUATION, name=BASE, assets=(BASE,)))
    _until(lambda: BASE in runs(home, phase))
    with evaluation.part(PhaseKind.JUDGE, "judge") as facts:
        facts |= {"judge": "big", "asked": 12}
    told = evaluation.end(PhaseStatus.FINISHED)
    found = runs(home, phase)
    assert found["judge"].data.tags["mlflow.parentRunId"] == found[BASE].info.run_id
    assert (found["judge"].data.metrics, found["judge"].info.status) == ({"asked": 12.0}, "FINISHED")
    assert found["judge"].info.run_id in told.links["MLflow (judge)"]


def test_a_loss_read_while_training_is_not_logged_twice(local: Telemetry, home: Path, phase: Phase, tmp_path: Path) -> None:
    training = local.begin(phase)
    training.reading(1, {"loss": 2.0})
    assert training.end(PhaseStatus.FINISHED, [trained(tmp_path)]).lost == ()
    run = runs(home, phase)[ADAPTER].info.run_id
    history = client_of(f"sqlite:///{home}/mlflow/mlflow.db").get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]


def test_a_loss_that_is_no_number_any_more_is_told(local: Telemetry, home: Path, phase: Phase) -> None:
    training = local.begin(phase)
    training.reading(1, {"loss": float("nan")})
    assert training.end(PhaseStatus.FAILED).lost == ()
    assert str(runs(home, phase)[ADAPTER].data.metrics["loss"]) == "nan"


def test_an_interrupted_phase_and_its_cell_end_as_killed(local: Telemetry, home: Path, phase: Phase) -> None:
    training = local.begin(phase)
    _until(lambda: ADAPTER in runs(home, phase))
    training.end(PhaseStatus.KILLED)
    assert statuses(home, phase) == {"adapter": "KILLED", "small": "KILLED"}


_KILLED = """
import sys, time
from pathlib import Path
from flywheel_assets.core.graph import ADAPTER, Partition
from flywheel_assets.resources.telemetry import Phase, PhaseKind
from tests.resources.telemetry.test_mlflow_observer import settings, telemetry_of
home, workload = Path(sys.argv[1]), sys.argv[2]
cell = Partition(workload, "small")
phase = Phase(PhaseKind.TRAINING, ADAPTER, (ADAPTER,), cell, "run " + workload, "turn " + workload, "url", time.time())
watching = telemetry_of(settings(home)).begin(phase)
time.sleep(600)
"""


def _killed_in(home: Path, phase: Phase) -> None:
    """A process that tells of a phase and is killed with -9 in the middle of it."""
    command = [sys.executable, "-c", _KILLED, str(home), phase.partition.workload]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY)
    try:
        _until(lambda: statuses(home, phase) == {"adapter": "RUNNING", "small": "RUNNING"}, 150)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_what_a_killed_process_left_open_ends_as_killed_when_its_run_is_buried(
    local: Telemetry, home: Path, phase: Phase
) -> None:
    _killed_in(home, phase)
    local.bury([phase.dagster_run])
    _until(lambda: statuses(home, phase) == {"adapter": "KILLED", "small": "KILLED"})


def test_where_nobody_buries_it_the_next_phase_ends_it(local: Telemetry, home: Path, phase: Phase) -> None:
    _killed_in(home, phase)
    local.begin(replace(phase, partition=Partition("other"), dagster_run="other")).end(PhaseStatus.FINISHED)
    assert statuses(home, phase) == {"adapter": "KILLED", "small": "KILLED"}
    assert [*(home / "telemetry" / "mlflow" / "open").glob("*.json")] == []


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    server = FaultyProxy(f"http://127.0.0.1:{free_port()}")
    yield server
    server.close()


def test_a_server_that_hangs_costs_seconds_once(proxy: FaultyProxy, tmp_path: Path, phase: Phase) -> None:
    def hang(*_: Any) -> bool:
        time.sleep(20)
        return True

    proxy.fault = hang
    asked = telemetry_of(settings(tmp_path, tracking_uri=proxy.url))
    began = time.monotonic()
    told = asked.begin(phase).end(PhaseStatus.FINISHED)
    again = asked.begin(phase).end(PhaseStatus.FINISHED)
    assert time.monotonic() - began < watch.MAKING_S
    (lost,) = told.lost
    assert (lost.observer, told.links) == ("MLflow", {}) and "did not answer within" in lost.why
    assert again.lost and len(proxy.requests) == 1


def test_a_server_that_fails_is_asked_once_and_told_about(proxy: FaultyProxy, tmp_path: Path, phase: Phase) -> None:
    def fail(server: FaultyProxy, handler: Any, _: Any) -> bool:
        server.reply(handler, 500, json.dumps({"error_code": "INTERNAL_ERROR", "message": "disk full"}).encode())
        return True

    proxy.fault = fail
    told = telemetry_of(settings(tmp_path, tracking_uri=proxy.url)).begin(phase).end(PhaseStatus.FINISHED)
    assert [lost.observer for lost in told.lost] == ["MLflow"] and len(proxy.requests) == 1
    assert "disk full" in told.lost[0].why


def test_no_key_is_shown_where_it_cannot_be_sent(tmp_path: Path, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret\nkey")
    told = telemetry_of(settings(tmp_path, tracking_uri="http://ada:pass@127.0.0.1:9")).begin(phase).end(PhaseStatus.FAILED)
    assert "MLFLOW_TRACKING_TOKEN holds a line feed" in told.lost[0].why
    assert not {"s3cret", "pass@"} & set(str(told.lost)) and "s3cret" not in str(told.lost)


def test_limits_are_not_put_into_the_environment_of_user_code(local: Telemetry, home: Path, phase: Phase) -> None:
    local.begin(phase).end(PhaseStatus.FINISHED)
    names = {name for name in os.environ if name.startswith("MLFLOW_")}
    assert names <= {"MLFLOW_DISABLE_TELEMETRY"}


def _until(holds: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.1)
