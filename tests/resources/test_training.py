"""Starting, watching and ending the training child; what it does when left alone is in tests/e2e/test_training.py."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from flywheel_assets.resources.processes import KilledFromOutside
from flywheel_assets.resources.training import TrainingFailed, TrainingJob, _read_on, progress, run_training
from flywheel_assets.settings import TrainingSettings
from flywheel_assets.trainer.failure import FailureKind
from flywheel_assets.trainer.report import Reporter
from tests.trainer.tiny_model import weather_row, write_rows


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return TrainingJob(
        model=model,
        template=None,
        train_files=(write_rows(tmp_path / "train.jsonl", [weather_row(0)]),),
        validation_files=(),
        settings=TrainingSettings(device="cpu"),
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        threads=1,
    )


def failed(job: TrainingJob, **more: Any) -> TrainingFailed:
    caught: list[TrainingFailed] = []

    @dg.asset
    def adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        try:
            run_training(context, job, **more)
        except TrainingFailed as failure:
            caught.append(failure)
        return dg.MaterializeResult()

    assert dg.materialize([adapter]).success
    assert not children()
    return caught[0]


def children() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "flywheel_assets.trainer" in process.cmdline():
                found.append(process)
    return found


def no_model(job: TrainingJob, tmp_path: Path) -> TrainingJob:
    return replace(job, model=tmp_path / "gone.gguf")


def empty_model(job: TrainingJob, tmp_path: Path) -> TrainingJob:
    (tmp_path / "empty").mkdir()
    return replace(job, model=tmp_path / "empty")


def no_rows(job: TrainingJob, tmp_path: Path) -> TrainingJob:
    return replace(job, train_files=(write_rows(tmp_path / "none.jsonl", []),))


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (no_model, FailureKind.MODEL_MISSING, "gone.gguf"),
        (empty_model, FailureKind.MODEL_MISSING, "holds no config.json"),
        (no_rows, FailureKind.NO_ROWS, "no training rows"),
    ],
)
def test_what_the_child_refuses_is_raised_in_its_own_words(
    job: TrainingJob, tmp_path: Path, fault: Callable[[TrainingJob, Path], TrainingJob], kind: FailureKind, says: str
) -> None:
    failure = failed(fault(job, tmp_path))
    assert failure.kind is kind
    assert says in failure.message
    assert failure.next_step
    assert not job.out_dir.exists()


def test_a_training_that_takes_too_long_is_ended_with_its_child(job: TrainingJob) -> None:
    start = time.monotonic()
    failure = failed(job, timeout=0.5)
    assert failure.kind is FailureKind.TIMEOUT
    assert "training.timeout_minutes" in failure.next_step
    assert time.monotonic() - start < 30


def test_a_child_killed_by_the_system_is_reported_as_such(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []

    def kill_it(_: float) -> None:
        for child in children():
            if child.pid not in killed:
                killed.append(child.pid)
                child.kill()

    monkeypatch.setattr("flywheel_assets.resources.training.time.sleep", kill_it)
    failure = failed(job)
    assert failure.kind is FailureKind.KILLED and isinstance(failure, KilledFromOutside)
    assert "training.batch_size (now 4)" in failure.next_step


def test_there_is_no_progress_before_the_first_report(tmp_path: Path) -> None:
    assert progress(tmp_path) is None


def test_a_training_that_has_begun_and_made_no_step_yet_is_read_on_without_a_fault(tmp_path: Path) -> None:
    told: list[int] = []

    class Quiet:
        def info(self, message: str) -> None: ...

        def error(self, message: str) -> None: ...

    reporter = Reporter(tmp_path, Quiet())
    reporter.phase("train", "training begins")
    assert _read_on(tmp_path, lambda step, numbers: told.append(step), 0) == 0 and told == []
    reporter.step(step=1, of=4, loss=2.0, tokens_per_s=9.0, seconds_left=3.0)
    assert _read_on(tmp_path, lambda step, numbers: told.append(step), 0) == 1 and told == [1]
