"""Workers: a few Python processes that run this package's functions on chunks, and die with the one that started them.

What belongs here: starting, feeding and ending the processes. What does not: what is computed in them.

Not `multiprocessing`: its spawned children import the caller's main module again (Dagster's, seconds each), and they
outlive a parent that is killed. A worker here reads tasks from its standard input, so the kernel ends it with its parent.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Protocol

# Starting Python and numpy costs about as much as preparing this many records in one process.
SERIAL_RECORDS = 5_000
MAX_WORKERS = 8
# Chunks in flight for each worker: one being worked on, one waiting; more only costs memory.
_CHUNKS_EACH = 2


class WorkerFailed(RuntimeError):
    """A task failed in a worker process, or the process died; the message carries the worker's own account."""


class InOrder(Protocol):
    """Runs `task(*arguments)` for each arguments, perhaps in parallel; results come in the order of the arguments."""

    def __call__(self, task: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results."""
        ...


def worker_count(requested: int | None, records: int) -> int:
    """How many workers to start for so many records: none (work in this process) for few, else one a core, 8 at most."""
    if records < SERIAL_RECORDS:
        return 0
    count = requested if requested is not None else min(_cores(), MAX_WORKERS)
    return count if count > 1 else 0


def _cores() -> int:
    # What this process may use, which in a container is less than the machine has; only Linux can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(count: int) -> Iterator[InOrder]:
    """`count` worker processes for the length of the block; with 0 the tasks run in this process."""
    if count == 0:
        yield _serially
        return
    with ExitStack() as stack:
        idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(_process()))
        threads = stack.enter_context(ThreadPoolExecutor(count))
        # Left early (an error, a generator given up), nothing that waits may start any more.
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)

        def run(task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            process = idle.get()
            try:
                return _call(process, task, arguments)
            finally:
                idle.put(process)

        def in_order(task: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
            pending: deque[Future[Any]] = deque()
            for each in arguments:
                pending.append(threads.submit(run, task, each))
                if len(pending) >= count * _CHUNKS_EACH:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        yield in_order


def _serially(task: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    return (task(*each) for each in arguments)


@contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.kill()
        with suppress(BrokenPipeError):  # what a dead worker has not read has nowhere to go
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _call(process: subprocess.Popen[bytes], task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump((task, arguments), process.stdin, protocol=5)
        process.stdin.flush()
        done, answer = pickle.load(process.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        raise WorkerFailed(
            f"a data-preparation process died (exit code {process.wait()}; -9 is mostly a lack of memory). "
            "Free memory, or lower the number of workers, and run again: nothing was published."
        ) from None
    if not done:
        raise WorkerFailed(f"a data-preparation process failed:\n{answer}")
    return answer


class _WithoutPandas(MetaPathFinder):
    """pyarrow imports pandas wherever it is installed, to recognise its types: 0.2 s and 50 MB a worker, for nothing."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("data-preparation processes do without pandas")


def serve() -> None:
    """The life of a worker: tasks from standard input, answers to standard output, until the input ends."""
    # Parsed JSON has no cycles; looking for them costs a fifth of the time.
    gc.disable()
    sys.meta_path.insert(0, _WithoutPandas())
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever prints in a task must not end up among the answers.
    os.dup2(2, 1)
    while True:
        try:
            task, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, task(*arguments))
        except Exception:  # noqa: BLE001 - whatever it is, the parent raises it
            answer = (False, traceback.format_exc())
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
