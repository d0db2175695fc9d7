"""Run workers: one process for each Dagster run that `flywheel run` has in flight.

Processes and not threads: Dagster configures Python's logging anew for every run, and two runs in one process deadlock
there. They are forked from a server that has imported everything once, so that a run costs no import; the kernel kills
them when that server, and with it `flywheel run`, dies.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess

import dagster as dg
from dagster import DagsterInstance
from dagster._core.instance import InstanceRef
from rich.console import Console
from rich.markup import escape

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.booking import RunReport
from flywheel_assets.cli_errors import UserError
from flywheel_assets.core.batches import Batch
from flywheel_assets.definitions import build_defs
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.nemo.sweep import sweep
from flywheel_assets.resources.processes import FORK_SERVER_PID, IMPORTED_ONCE, RUNNER_PID, die_with_parent, this_process
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG, FLYWHEEL_RUN_TAG, OWNER_TAG, partition_tags
from flywheel_assets.resources.telemetry.losses import is_old_news
from flywheel_assets.runner import Choice, Say, turn
from flywheel_assets.settings import Settings, load_settings

# A training child ends within 10 s of being told; then the worker reports its run as cancelled.
_STOP_GRACE_S = 15.0

FORK_SERVER = multiprocessing.get_context("forkserver")
# The kernel's limit of a socket's path is 108 bytes; the fork server's is this much below the folder for temporary files.
_LONGEST_TMPDIR = 108 - len("/pymp-12345678/listener-12345678\0")


class ForkedWorkers:
    """Executes every batch in a forked process; `Workers` of the runner. `imports` are further modules that runs need.

    All runs of a turn have the settings it was planned with: one that read flywheel.yaml itself, after an edit, would make
    something else than what it was started for, and be started again. None: as the file stands when a run begins.
    """

    def __init__(self, settings: Settings | None, *, progress_on_stderr: bool = False, imports: Sequence[str] = ()) -> None:
        self._settings = settings
        self._progress_on_stderr = progress_on_stderr
        self._running: dict[ForkServerProcess, Batch] = {}
        folder = tempfile.gettempdir()
        if len(os.fsencode(folder)) > _LONGEST_TMPDIR:
            raise UserError(
                f"the folder for temporary files, {folder}, has too long a name for a socket in it: it may have "
                f"{_LONGEST_TMPDIR} bytes. Set TMPDIR to a shorter one, such as TMPDIR=/tmp, and start again."
            )
        os.environ[RUNNER_PID] = str(os.getpid())
        os.environ[IMPORTED_ONCE] = " ".join(imports)
        FORK_SERVER.set_forkserver_preload(["flywheel_assets.fork_server"])

    def start(self, batch: Batch, flywheel_run: str) -> None:
        """Begin to execute a batch."""
        arguments = (self._settings, batch, flywheel_run, self._progress_on_stderr)
        process = FORK_SERVER.Process(target=_work, args=arguments, name=batch.name)
        process.start()
        self._running[process] = batch

    def wait(self) -> list[tuple[Batch, bool]]:
        """Block until a batch has ended; each with whether its process exited with 0."""
        wait([process.sentinel for process in self._running])
        ended = [process for process in self._running if process.exitcode is not None]
        return [(self._running.pop(process), process.exitcode == 0) for process in ended]

    def stop(self) -> None:
        """Terminate the workers the way Dagster terminates a run, and kill what does not listen."""
        for process in self._running:
            process.terminate()
        deadline = time.monotonic() + _STOP_GRACE_S
        for process in self._running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()


def turn_in_processes(
    instance: DagsterInstance,
    flywheel: Flywheel,
    choice: Choice,
    say: Say,
    *,
    flywheel_run: str | None = None,
    progress_on_stderr: bool = False,
) -> RunReport:
    """`runner.turn` with a process for each run; what a killed run left in a cluster is taken up, or ended."""
    settings = flywheel.settings
    workers = ForkedWorkers(settings, progress_on_stderr=progress_on_stderr, imports=flywheel.telemetry.imports)
    try:
        return turn(instance, flywheel, workers, choice, say, flywheel_run=flywheel_run)
    finally:
        # Workers end what they started; what a killed one left is taken up by this turn, or ended here.
        sweep(settings, say, min_idle_s=0)


def _work(settings: Settings | None, batch: Batch, flywheel_run: str, progress_on_stderr: bool) -> None:
    """The body of a worker process: one run, in this process; exits 1 when it failed."""
    die_with_parent(int(os.environ[FORK_SERVER_PID]))
    # Ctrl-C goes to the whole group of the terminal; what it means for this run is for `flywheel run` to say (`stop`).
    os.setpgid(0, 0)
    out = Console(stderr=progress_on_stderr, highlight=False, soft_wrap=True)
    defs = build_defs(settings or load_settings(), loggers={"console": _console_logger(out, batch)})
    with own_instance() as instance:
        sys.exit(0 if execute(instance, defs, batch, flywheel_run) else 1)


def own_instance() -> DagsterInstance:
    """The instance of DAGSTER_HOME, without capture of stdout: that would take the terminal away from the progress lines."""
    no_capture = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return DagsterInstance.from_ref(InstanceRef.from_dir(os.environ["DAGSTER_HOME"], overrides={"compute_logs": no_capture}))


def execute(instance: DagsterInstance, defs: dg.Definitions, batch: Batch, flywheel_run: str) -> bool:
    """Run one batch as one Dagster run in this process; whether it succeeded."""
    tags = {
        OWNER_TAG: str(this_process()),
        FLYWHEEL_RUN_TAG: flywheel_run,
        BATCH_TAG: batch.name,
        BATCH_KEY_TAG: batch.key,
        **partition_tags(batch.partition),
    }
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[asset_key(name) for name in batch.assets],
        partition_key=partition_key(batch.partition),
        # Without this Dagster shows its own log on the terminal, whatever loggers the definitions have.
        run_config={"loggers": {"console": {}}},
        tags=tags,
        raise_on_error=False,
    )
    return result.success


class _ProgressHandler(logging.Handler):
    """Shows what asset bodies log (`context.log.info`), and none of the framework's own events."""

    def __init__(self, out: Console, batch: Batch) -> None:
        super().__init__(logging.INFO)
        self._out = out
        self._partition = str(batch.partition)

    def emit(self, record: logging.LogRecord) -> None:
        """One line a message, with the partition and step it came from; what is no news to this terminal is left out."""
        meta = getattr(record, "dagster_meta", {})
        if meta.get("dagster_event") is not None:
            return
        where = f"{self._partition}: {meta.get('step_key') or ''}"
        style = "yellow" if record.levelno >= logging.WARNING else ""
        message = meta.get("orig_message") or record.getMessage()
        if is_old_news(message):
            return
        stamp = time.strftime("%H:%M:%S")
        self._out.print(f"[dim]{stamp}[/]  [dim]{escape(where)}[/]  {escape(message)}", style=style)


def _console_logger(out: Console, batch: Batch) -> dg.LoggerDefinition:
    def console(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("flywheel", logging.INFO)
        logger.addHandler(_ProgressHandler(out, batch))
        return logger

    return dg.LoggerDefinition(console, description="Progress lines of `flywheel run`.")
