"""A run that is killed, cancelled, or loses its cluster, at every stage and at random: nothing left, nothing redone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from flywheel_assets.resources.nemo.sweep import sweep
from flywheel_assets.resources.nemo.work import silent
from tests.nemo.cell import MODEL, TARGET, run_cell, settings_of
from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PROCESSES = multiprocessing.get_context("forkserver")
STEP_S = 0.8
_DEADLINE_S = 120.0


@pytest.fixture
def server() -> Iterator[NemoServer]:
    PROCESSES.set_forkserver_preload(["tests.nemo.cell"])
    with NemoServer() as server:
        server.customizer.targets[TARGET] = MODEL
        server.deployments.deploy_s = server.deployments.sync_s = STEP_S
        server.customizer.training_s = server.evaluator.evaluation_s = STEP_S
        yield server


def started(server: NemoServer, folder: Path, owner: str) -> ForkServerProcess:
    process = PROCESSES.Process(target=run_cell, args=(server.settings, folder, owner))
    process.start()
    return process


def finished(process: ForkServerProcess) -> int | None:
    process.join(_DEADLINE_S)
    return process.exitcode


def deploying(server: NemoServer) -> bool:
    return bool(server.deployments.by_name) and not server.deployments.served()


def evaluating(server: NemoServer) -> bool:
    return bool(server.evaluator.alive())


def training(server: NemoServer) -> bool:
    return bool(server.customizer.alive())


def syncing(server: NemoServer) -> bool:
    made = [job.model for job in server.customizer.jobs.values() if job.status() == "completed"]
    return bool(made) and made[0] not in server.deployments.served()


def shutting_down(server: NemoServer) -> bool:
    return any(fault.method == "DELETE" and not fault.times for fault in server.faults)


STAGES: list[Callable[[NemoServer], bool]] = [deploying, evaluating, training, syncing, shutting_down]


def reach(server: NemoServer, stage: Callable[[NemoServer], bool]) -> None:
    """Wait until a run is in a stage; a late answer holds it in the last one."""
    server.faults = [Fault(method="DELETE", path="model-deployments", delay_s=STEP_S)] if stage is shutting_down else []
    deadline = time.monotonic() + _DEADLINE_S
    while not stage(server):
        assert time.monotonic() < deadline, "the stage was never reached"
        time.sleep(0.02)


def assert_done_once_and_nothing_left(server: NemoServer, folder: Path) -> None:
    """After one more run: every piece of work ended well exactly once, and the cluster is empty."""
    assert finished(started(server, folder, "run-2")) == 0
    sweep(settings_of(server.settings, folder), silent, min_idle_s=0)
    assert server.left() == []
    trainings = [job for job in server.customizer.jobs.values() if job.status() == "completed"]
    evaluations = [job for job in server.evaluator.jobs.values() if server.evaluator.status(job) == "completed"]
    assert (len(trainings), len(evaluations)) == (1, 2)
    assert len({str(job.body["target"]) for job in evaluations}) == 2


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_run_that_is_killed(server: NemoServer, tmp_path: Path, stage: Callable[[NemoServer], bool]) -> None:
    process = started(server, tmp_path, "run-1")
    reach(server, stage)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert finished(process) == -signal.SIGKILL
    assert_done_once_and_nothing_left(server, tmp_path)
    # What still ran was taken up, not started anew.
    assert len(server.customizer.jobs) == 1
    assert len(server.evaluator.jobs) == 2


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_run_that_is_cancelled(server: NemoServer, tmp_path: Path, stage: Callable[[NemoServer], bool]) -> None:
    process = started(server, tmp_path, "run-1")
    reach(server, stage)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert finished(process) not in (0, None)
    deadline = time.monotonic() + 5
    while server.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.left() == []
    assert_done_once_and_nothing_left(server, tmp_path)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_cluster_that_restarts(server: NemoServer, tmp_path: Path, stage: Callable[[NemoServer], bool]) -> None:
    process = started(server, tmp_path, "run-1")
    reach(server, stage)
    server.stop()
    time.sleep(1.0)
    server.start()
    assert finished(process) == 0
    assert_done_once_and_nothing_left(server, tmp_path)
    assert len(server.customizer.jobs) == 1
    assert len(server.evaluator.jobs) == 2


# The stages above are its regression test; twenty more moments are for `make proofs`.
def test_twenty_kills_at_random_moments(server: NemoServer, tmp_path: Path) -> None:
    rng = random.Random(20261125)
    for number in range(20):
        process = started(server, tmp_path, f"run-{number}")
        process.join(rng.uniform(0.2, 5.0))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    assert_done_once_and_nothing_left(server, tmp_path)
