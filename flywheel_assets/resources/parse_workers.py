"""Parsing chunks of lines, here or in child processes.

What belongs here: how many processes parse, and the pipes to them. What does not: the parsing itself (`core.records`, and
`core.formats` for what is no log).

The children are plain `python -m` processes on pipes, not a `multiprocessing` pool: a pool either forks threads and open
databases, or runs the caller's main script again. A child ends when its parent does, since its input then ends.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from flywheel_assets.core.formats import LOG, Format, FormatBroken, format_named, read_line
from flywheel_assets.core.records import Record, Reject, parse_record
from flywheel_assets.resources.log_lines import Chunk

# Two children keep up with what one process can store; a third would wait.
_MAX_WORKERS = 2
# Up to here (about 5,000 tool-calling records, 0.15 s) parsing is done before a child would have started.
_INLINE_BYTES = 16 << 20

# A chunk in one go rather than 64 kB at a time; where pipes have one size only, Python ignores it.
_PIPE_BYTES = 1 << 20

_fields = attrgetter(*Record.__slots__)


class ParseWorkerError(Exception):
    """A parsing process ended on its own; the message says how."""


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """What parsing needs beside the line. `formats` names, by origin, the format of what is not in the log schema;
    `configured` are formats that take the place of those of their names."""

    max_bytes: int
    default_workload: str | None = None
    source: str | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    configured: Sequence[Format] = ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a chunk held: records in order, and rejects with their line numbers; blank lines are neither."""

    origin: str
    records: list[Record]
    rejects: list[tuple[int, Reject]]


def parse_chunks(chunks: Iterable[Chunk], options: ParseOptions, *, workers: int | None = None) -> Iterator[Parsed]:
    """Parse chunks, in order: the first ones here, the rest of a long input in `workers` child processes.

    `workers` defaults to what the CPUs this process may use allow; 0 parses everything here. Raises ParseWorkerError,
    and FormatBroken where a format failed.
    """
    waiting = iter(chunks)
    count = _usable_workers() if workers is None else workers
    seen = 0
    for chunk in waiting:
        yield parse_chunk(chunk, options)
        seen += sum(len(line) for line in chunk.lines if isinstance(line, bytes))
        if count and seen >= _INLINE_BYTES:
            break
    else:
        return
    with _Workers(count, options) as pool:
        yield from pool.parse(waiting)


def parse_chunk(chunk: Chunk, options: ParseOptions) -> Parsed:
    """Parse one chunk in this process. Raises FormatBroken."""
    now = time.time()
    name = options.formats.get(chunk.origin, LOG.name)
    if name != LOG.name:
        return _parse_rows(chunk, name, options, now)
    max_bytes, workload, source = options.max_bytes, options.default_workload, options.source
    records: list[Record] = []
    rejects: list[tuple[int, Reject]] = []
    for number, line in enumerate(chunk.lines, chunk.first_line):
        if isinstance(line, Reject):
            rejects.append((number, line))
        elif line and not line.isspace():
            parsed = parse_record(line, max_bytes=max_bytes, default_workload=workload, source=source, received_at=now)
            if isinstance(parsed, Record):
                records.append(parsed)
            else:
                rejects.append((number, parsed))
    return Parsed(chunk.origin, records, rejects)


def _parse_rows(chunk: Chunk, format_name: str, options: ParseOptions, now: float) -> Parsed:
    """Parse a chunk whose lines are rows of another format: each gives one record or more, or rejects."""
    form = next((one for one in options.configured if one.name == format_name), None) or format_named(format_name)
    parsed = Parsed(chunk.origin, [], [])
    for number, line in enumerate(chunk.lines, chunk.first_line):
        if isinstance(line, Reject):
            parsed.rejects.append((number, line))
        elif line and not line.isspace():
            for one in read_line(
                line,
                form,
                max_bytes=options.max_bytes,
                default_workload=options.default_workload,
                source=options.source,
                received_at=now,
            ):
                if isinstance(one, Record):
                    parsed.records.append(one)
                else:
                    parsed.rejects.append((number, one))
    return parsed


class _Worker:
    """One child, with one chunk at a time: with two, both sides could wait to write to each other for ever."""

    def __init__(self, options: ParseOptions) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            pipesize=_PIPE_BYTES,
        )
        self._send(options)

    def submit(self, chunk: Chunk) -> None:
        self._send(chunk)

    def result(self) -> Parsed:
        assert self._process.stdout is not None
        try:
            answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if isinstance(answer, FormatBroken):
            raise answer
        origin, rows, rejects = answer
        return Parsed(origin, [Record(*row) for row in rows], rejects)

    def stop(self) -> None:
        self._process.kill()
        # Leaving the process's context closes the pipes and waits; what was still unsent does not matter any more.
        try:
            self._process.__exit__(None, None, None)
        except BrokenPipeError:
            self._process.wait()

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _ended(self) -> ParseWorkerError:
        code = self._process.wait()
        return ParseWorkerError(
            f"a parsing process ended with code {code} (-9 is the system, short of memory)."
            " What was stored stays; run the same command again, nothing is stored twice."
        )


class _Workers:
    """Some children that take chunks in turn; leaving the context ends them, whatever they do."""

    def __init__(self, count: int, options: ParseOptions) -> None:
        self._idle = [_Worker(options) for _ in range(count)]
        self._busy: deque[_Worker] = deque()

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in (*self._idle, *self._busy):
            worker.stop()

    def parse(self, chunks: Iterator[Chunk]) -> Iterator[Parsed]:
        for chunk in chunks:
            if self._idle:
                self._submit(self._idle.pop(), chunk)
                continue
            worker = self._busy.popleft()
            self._idle.append(worker)
            parsed = worker.result()
            # Before the result is handed on: the child parses while the caller stores.
            self._submit(self._idle.pop(), chunk)
            yield parsed
        while self._busy:
            worker = self._busy.popleft()
            self._idle.append(worker)
            yield worker.result()

    def _submit(self, worker: _Worker, chunk: Chunk) -> None:
        self._busy.append(worker)
        worker.submit(chunk)


def _usable_workers() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, cpus) if cpus > 1 else 0


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child: options first, then chunks, until the parent closes the pipe or is gone."""
    options: ParseOptions = pickle.load(requests)
    while True:
        try:
            chunk: Chunk = pickle.load(requests)
        except EOFError:
            return
        try:
            parsed = parse_chunk(chunk, options)
            answer: Any = (parsed.origin, [_fields(record) for record in parsed.records], parsed.rejects)
        except FormatBroken as error:
            answer = error
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _main() -> None:
    # Ctrl-C goes to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An answer nobody waits for any more ends the child without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # Parsed JSON holds no cycles, and looking for them takes a tenth of the time.
    gc.disable()
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever prints must not end up between the answers.
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
