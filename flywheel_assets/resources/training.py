"""Training on this machine: a candidate and rows in, an adapter out, in a child process that ends with us.

What belongs here: starting the child through Dagster Pipes, watching it, ending it, and turning what it left behind into an
adapter or an error. What does not: how a model is trained (`flywheel_assets.trainer`), and what becomes of the adapter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NewType

import dagster as dg

from flywheel_assets.resources.model_files import child_environment, folder_for
from flywheel_assets.resources.processes import KilledFromOutside
from flywheel_assets.settings import TrainingSettings
from flywheel_assets.trainer.failure import FailureKind, TrainerError, out_of_memory
from flywheel_assets.trainer.job import Hyperparameters, Job
from flywheel_assets.trainer.report import ERROR_FILE, PROGRESS_FILE, REPORT_FILE

LOG_FILE = "trainer.log"
# From the signal to SIGKILL. The child needs well under a second; ending a run must take less than ten in all.
GRACE_S = 5.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training to be run.

    `model`: folder or GGUF file, or a hub id as text. `template`: the chat template's text, None for the model's own.
    `train_files`, `validation_files`: JSONL shards of `{"row_id", "prompt", "completion", "tools"}`. `out_dir` is replaced
    by the result, complete or not at all. `work_dir` must be the same for the same inputs and for no others (key it by the
    inputs key): a training found there is continued; delete it once the adapter is published. `cache_dir` keeps unpacked
    GGUF files for other trainings; None unpacks into `work_dir`. `threads`: CPU threads, None for all cores.
    """

    model: Path | str
    template: str | None
    train_files: tuple[Path, ...]
    validation_files: tuple[Path, ...]
    settings: TrainingSettings
    out_dir: Path
    work_dir: Path
    cache_dir: Path | None = None
    threads: int | None = None
    validation_rows: int = 32


HostedAdapter = NewType("HostedAdapter", str)
"""The name under which a platform serves a customized model."""


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A trained adapter: the PEFT folder, the GGUF form where there is one, and the report (see `trainer.run.train`).

    One that lies on a platform has no folder, but the name it is served under: `remote_model`.
    """

    adapter_dir: Path | None
    gguf: Path | None
    report: dict[str, Any]
    remote_model: HostedAdapter | None = None


class TrainingFailed(Exception):
    """A training ended without an adapter: of which kind, what happened, and what to change."""

    def __init__(self, kind: FailureKind, message: str, next_step: str) -> None:
        super().__init__(f"{message} {next_step}")
        self.kind = kind
        self.message = message
        self.next_step = next_step


class TrainingKilled(TrainingFailed, KilledFromOutside):
    """The training child was killed or interrupted; the next attempt goes on from its last checkpoint."""


def run_training(
    context: dg.AssetExecutionContext,
    job: TrainingJob,
    *,
    timeout: float | None = None,
    readings: Callable[[int, Mapping[str, float]], None] | None = None,
) -> TrainedAdapter:
    """Train, with the child's steps in the Dagster log; takes minutes to hours.

    `timeout` is seconds, and defaults to the settings' `timeout_minutes`. `readings` is called with a step and its numbers
    about every second. The child ends with the run: on termination or
    error within GRACE_S, and by the kernel where this process is killed. `progress(work_dir)` tells how it stands meanwhile.
    The asset that calls this must return or yield its own MaterializeResult (Dagster asks for it where Pipes was used).
    Raises TrainingFailed; TrainingKilled where that says nothing about the training.
    """
    limit = timeout if timeout is not None else 60 * job.settings.timeout_minutes
    job.work_dir.mkdir(parents=True, exist_ok=True)
    job.out_dir.parent.mkdir(parents=True, exist_ok=True)
    (job.work_dir / ERROR_FILE).unlink(missing_ok=True)
    try:
        ordered = job_for_child(job)
    except OSError as error:
        raise TrainingFailed(
            FailureKind.MODEL_MISSING,
            f"The candidate cannot be trained: its model {job.model} cannot be read ({error}).",
            "Set the candidate's `model` in flywheel.yaml to a model folder or GGUF file that exists.",
        ) from None
    # Not PipesSubprocessClient: it has no time limit, ends the child alone and not its group, and waits up to 20 s for that.
    with dg.open_pipes_session(
        context=context,
        context_injector=dg.PipesTempFileContextInjector(),
        message_reader=dg.PipesTempFileMessageReader(),
        extras={"job": ordered.to_json()},
    ) as session:
        environment = {**child_environment(), **session.get_bootstrap_env_vars()}
        with _child(job.work_dir, environment) as child:
            exit_code = _wait(child, limit, partial(_read_on, job.work_dir, readings) if readings else None)
    if exit_code is None:
        raise TrainingFailed(
            FailureKind.TIMEOUT,
            f"The training took longer than {limit / 60:g} minutes and was ended.",
            "Raise training.timeout_minutes (the next run continues from the last checkpoint), or lower training.max_rows.",
        )
    if exit_code != 0:
        raise _failure(job, exit_code)
    return read_adapter(job.out_dir)


def read_adapter(folder: Path) -> TrainedAdapter:
    """The adapter in a folder that `run_training` made, wherever it has been moved since."""
    report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    gguf = report.get("gguf")
    return TrainedAdapter(folder / "adapter", folder / gguf if gguf else None, report)


def progress(work_dir: Path) -> dict[str, Any] | None:
    """How a running training stands; None before its first report.

    `phase`, `at` (epoch seconds), and in phase train `step`, `of`, `loss`, `tokens_per_s`, `seconds_left`.
    """
    try:
        content: dict[str, Any] = json.loads((work_dir / PROGRESS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def job_for_child(job: TrainingJob) -> Job:
    """The job as the child reads it: absolute paths, since it works in another folder."""
    known = {field.name for field in fields(Hyperparameters)}
    hyper = job.settings.model_dump(include=known)
    ordered = Job(
        model=str(job.model),
        model_folder=None,
        template=job.template,
        train_files=tuple(str(path.resolve()) for path in job.train_files),
        validation_files=tuple(str(path.resolve()) for path in job.validation_files),
        hyperparameters=Hyperparameters(**hyper),
        out_dir=str(job.out_dir.resolve()),
        work_dir=str(job.work_dir.resolve()),
        threads=job.threads,
        validation_rows=job.validation_rows,
        parent_pid=os.getpid(),
    ).to_json()
    if not Job.from_json(ordered).is_hub_id:
        model = Path(job.model).resolve()
        ordered |= {"model": str(model), "model_folder": str(folder_for(model, (job.cache_dir or job.work_dir).resolve()))}
    return Job.from_json(ordered)


@contextmanager
def _child(work_dir: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The trainer, in a process group of its own; on leaving, the whole group is gone, whatever happened."""
    with (work_dir / LOG_FILE).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "flywheel_assets.trainer"],
            env=environment,
            cwd=work_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        _end(child)


def _read_on(work_dir: Path, readings: Callable[[int, Mapping[str, float]], None], last: int) -> int:
    """Hand on where the training stands if that is a later step than `last`; the step it stands at."""
    now = progress(work_dir)
    # The phase is told before its first step is.
    if now is None or now.get("phase") != "train" or now.get("step", 0) <= last:
        return last
    readings(now["step"], {name: now[name] for name in ("loss", "tokens_per_s")})
    return int(now["step"])


def _wait(child: subprocess.Popen[bytes], limit: float, read_on: Callable[[int], int] | None = None) -> int | None:
    """The child's exit code; None when the limit passed first. `read_on` is given the last step it has seen."""
    step = 0
    deadline = time.monotonic() + limit
    # Short sleeps, not one long wait: Dagster ends a run by an exception in this thread, which a blocked call would hold up.
    while time.monotonic() < deadline:
        exit_code = child.poll()
        if exit_code is not None:
            return exit_code
        step = read_on(step) if read_on else step
        time.sleep(_POLL_S)
    return child.poll()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to stop, then kill its group; returns once it is gone."""
    try:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
    finally:
        # A group that is empty already is what was wanted.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _failure(job: TrainingJob, exit_code: int) -> TrainingFailed:
    """What the child said, or what its exit code and the end of its log tell where it could say nothing."""
    try:
        said = TrainerError.from_json(json.loads((job.work_dir / ERROR_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        said = _unsaid(job, exit_code)
    ended = TrainingKilled if said.kind in (FailureKind.KILLED, FailureKind.INTERRUPTED) else TrainingFailed
    return ended(said.kind, said.message, said.next_step)


def _unsaid(job: TrainingJob, exit_code: int) -> TrainerError:
    if exit_code == -signal.SIGKILL:
        settings = job.settings
        likely = out_of_memory(
            "killed by the system", batch_size=settings.batch_size, max_seq_length=settings.max_seq_length
        )
        return TrainerError(
            FailureKind.KILLED,
            "The training process was killed from outside, most often by the system because memory ran out.",
            f"If so: {likely.next_step} The next run continues from its checkpoint.",
        )
    log = job.work_dir / LOG_FILE
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    return TrainerError(
        FailureKind.UNEXPECTED,
        f"The training process ended with exit code {exit_code}: {' | '.join(tail) or 'it printed nothing'}",
        f"See {log}.",
    )
