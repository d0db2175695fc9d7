"""`python -m flywheel_assets.trainer [JOB.json]`: one training in this process.

Started by Dagster Pipes, the job comes in the extras; started by hand, it is the JSON file named. Exit code 0 means the
adapter is in `out_dir`; anything else leaves `error.json` in `work_dir`.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import guard
from .failure import FailureKind, TrainerError, explain
from .job import Job, read_job_file
from .report import Log, Reporter
from .run import train

_USAGE = 2
_FAILED = 1


@contextmanager
def _conversation(arguments: list[str]) -> Iterator[tuple[Any, Log]]:
    """The job (as read, unchecked) and where to log: Pipes where Dagster started us, else a file and the terminal."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        with open_dagster_pipes() as pipes:
            yield pipes.get_extra("job"), pipes.log
        return
    if len(arguments) != 1:
        sys.exit("usage: python -m flywheel_assets.trainer JOB.json (or start it through Dagster Pipes)")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    yield Path(arguments[0]), logging.getLogger("flywheel_assets.trainer")


def main() -> int:
    """Read the job, train, and say how it went; the exit code."""
    guard.die_with_parent()
    with _conversation(sys.argv[1:]) as (source, log):
        try:
            job = read_job_file(source) if isinstance(source, Path) else Job.from_json(source)
        except TrainerError as failure:
            log.error(str(failure))
            return _USAGE
        work_dir = Path(job.work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        (work_dir / "error.json").unlink(missing_ok=True)
        reporter = Reporter(work_dir, log)
        guard.watch(job.parent_pid, lambda number: reporter.failed(_interrupted(number)))
        try:
            train(job, reporter)
        # The last resort: whatever it was, a person is told, and the traceback is in the log.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            traceback.print_exc()
            hyper = job.hyperparameters
            reporter.failed(explain(error, batch_size=hyper.batch_size, max_seq_length=hyper.max_seq_length))
            return _FAILED
    return 0


def _interrupted(number: int) -> TrainerError:
    return TrainerError(
        FailureKind.INTERRUPTED,
        f"The training was ended by {signal.Signals(number).name}.",
        "Run it again: it continues from its last checkpoint.",
    )


if __name__ == "__main__":
    sys.exit(main())
