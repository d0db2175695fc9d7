"""Runs whose process is dead are reported as failed, at whatever point of their life it died; no other run is touched."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from flywheel_assets.resources.processes import ProcessIdentity, this_process
from flywheel_assets.resources.runs import BATCH_TAG, OWNER_TAG, bury_dead_runs


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@pytest.fixture(scope="module")
def dead() -> ProcessIdentity:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = ProcessIdentity(this_process().host, process.pid, psutil.Process(process.pid).create_time())
    process.kill()
    process.wait()
    return identity


@dg.job
def nothing() -> None:
    """A job without a step."""


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
def test_a_run_whose_process_died_is_buried_whether_it_had_begun_or_not(
    instance: DagsterInstance, dead: ProcessIdentity, status: DagsterRunStatus
) -> None:
    run = instance.create_run_for_job(nothing, tags={OWNER_TAG: str(dead)}, status=status)
    assert bury_dead_runs(instance) == [run.run_id]
    buried = instance.get_run_by_id(run.run_id)
    assert buried is not None and buried.status is DagsterRunStatus.FAILURE


def test_a_run_that_waits_for_its_process_is_left_alone(instance: DagsterInstance) -> None:
    instance.create_run_for_job(nothing, tags={OWNER_TAG: str(this_process())}, status=DagsterRunStatus.NOT_STARTED)
    instance.create_run_for_job(nothing, status=DagsterRunStatus.NOT_STARTED)
    assert bury_dead_runs(instance) == []


def test_a_run_tried_again_does_not_die_of_its_parents_owner(instance: DagsterInstance, dead: ProcessIdentity) -> None:
    tags = {OWNER_TAG: str(dead)}
    parent = instance.create_run_for_job(nothing, tags=tags, status=DagsterRunStatus.FAILURE)
    # Dagster copies the tags, the owner among them; the new run says who executes it when its first asset begins.
    instance.create_run_for_job(
        nothing, tags=tags, status=DagsterRunStatus.NOT_STARTED, root_run_id=parent.run_id, parent_run_id=parent.run_id
    )
    assert bury_dead_runs(instance) == []


def test_a_run_of_a_host_that_is_gone_is_given_up_when_nothing_was_heard_of_it_for_a_day(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ProcessIdentity("a-pod-that-is-gone", 1, 1.0)
    run = instance.create_run_for_job(nothing, tags={OWNER_TAG: str(elsewhere)}, status=DagsterRunStatus.STARTED)
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock + 23 * 3600)
    assert bury_dead_runs(instance) == []
    monkeypatch.setattr(time, "time", lambda: clock + 25 * 3600)
    assert bury_dead_runs(instance) == [run.run_id]


def test_a_silent_run_of_this_host_lives_as_long_as_its_process(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.create_run_for_job(nothing, tags={OWNER_TAG: str(this_process())}, status=DagsterRunStatus.STARTED)
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock + 48 * 3600)
    assert bury_dead_runs(instance) == []


def test_a_run_that_was_never_begun_is_given_up_by_age_too_if_it_is_ours(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = instance.create_run_for_job(nothing, tags={BATCH_TAG: "tickets@data"}, status=DagsterRunStatus.STARTED)
    instance.create_run_for_job(nothing, status=DagsterRunStatus.STARTED)
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock + 23 * 3600)
    assert bury_dead_runs(instance) == []
    monkeypatch.setattr(time, "time", lambda: clock + 25 * 3600)
    assert bury_dead_runs(instance) == [ours.run_id]
