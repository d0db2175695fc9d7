"""Which format each log is in: named by the user, or told by its first rows, before anything is stored.

What belongs here: looking at the beginning of a log without losing it, and the questions that must be settled first. What
does not: the formats (`core.formats`), and reading the rest (`log_lines`, `parse_workers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from flywheel_assets.core.formats import (
    AUTO,
    DETECTION_ROWS,
    LOG,
    Format,
    FormatBroken,
    FormatError,
    Undetected,
    UnknownFormat,
    detect,
    format_named,
    formats,
    records_of,
)
from flywheel_assets.core.formats.langfuse import LangfuseExport
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.log_lines import STDIN, Chunk, LogFileError, read_chunks
from flywheel_assets.settings import Settings

# About as many megabytes are looked at for the first rows; a log whose beginning is longer than that is no log.
_HEAD_CHUNKS = 8


class LogFormatError(Exception):
    """A log's format is not known, or what it lacks was not given; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log and the name of its format. What was read of a stream to find that out is held, since it comes only once."""

    origin: str
    format_name: str
    held: tuple[Chunk, ...] = ()
    rest: Iterator[Chunk] | None = field(default=None, compare=False)
    failure: LogFileError | None = None

    def chunks(self, *, max_bytes: int) -> Iterator[Chunk]:
        """All chunks of the log, once. Raises LogFileError."""
        if self.rest is None:
            yield from read_chunks(self.origin, max_bytes=max_bytes)
            return
        yield from self.held
        if self.failure is not None:
            raise self.failure
        yield from self.rest


def configured_formats(settings: Settings) -> tuple[Format, ...]:
    """The formats that read rows by rules of flywheel.yaml, in place of their namesakes without."""
    rules = settings.langfuse
    return (LangfuseExport(rules.workload_from, rules.feedback_score, rules.correction_score),)


def recognised_logs(
    origins: Sequence[str],
    format_name: str,
    default_workload: str | None,
    *,
    max_bytes: int,
    configured: Sequence[Format] = (),
) -> list[Log]:
    """The logs with their formats, in order. Logs said to be in the log schema are not even opened.

    Raises LogFormatError: an unknown format, a log that could be in several or in none, or rows that name no workload
    while none is given for them.
    """
    if format_name == LOG.name:
        return [Log(origin, format_name) for origin in origins]
    try:
        known = dict(formats()) if format_name == AUTO else {format_name: format_named(format_name)}
        known |= {one.name: one for one in configured if one.name in known}
    except UnknownFormat as error:
        raise LogFormatError(str(error)) from error
    return [_recognised(origin, known, format_name == AUTO, default_workload, max_bytes) for origin in origins]


def _recognised(origin: str, known: dict[str, Format], is_open: bool, default_workload: str | None, max_bytes: int) -> Log:
    chunks = read_chunks(origin, max_bytes=max_bytes)
    held: list[Chunk] = []
    rows: list[Json] = []
    failure: LogFileError | None = None
    try:
        while len(rows) < DETECTION_ROWS and len(held) < _HEAD_CHUNKS and (chunk := next(chunks, None)) is not None:
            held.append(chunk)
            rows += _objects(chunk, DETECTION_ROWS - len(rows))
    except LogFileError as error:
        failure = error
    try:
        form = detect(rows, known) if is_open else next(iter(known.values()))
    except Undetected as error:
        raise LogFormatError(f"{origin} {error}") from error
    except FormatBroken as error:
        raise LogFormatError(f"{origin}: {error}") from error
    if default_workload is None and form.name != LOG.name:
        _check_workload(origin, form, rows)
    if origin != STDIN and Path(origin).is_file():
        return Log(origin, form.name)
    return Log(origin, form.name, tuple(held), chunks, failure)


def _objects(chunk: Chunk, wanted: int) -> list[Json]:
    """The first objects of a chunk."""
    found: list[Json] = []
    for line in chunk.lines:
        if len(found) == wanted:
            break
        if not isinstance(line, bytes) or not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if type(value) is dict:
            found.append(value)
    return found


def _check_workload(origin: str, form: Format, rows: list[Json]) -> None:
    """Refuse rows of which none names a workload: each of them would be rejected, one after the other."""
    readable = False
    for row in rows:
        try:
            made = records_of(form, row)
        except FormatError:
            continue
        except FormatBroken as error:
            raise LogFormatError(f"{origin}: {error}") from error
        if any(record.get("workload_id") is not None for record in made):
            return
        readable = readable or bool(made)
    if readable:
        raise LogFormatError(
            f"{origin} ({form.name}) names no workload, and none was given for it. Say which kind of call it is an example "
            f"of: flywheel ingest {origin} --format {form.name} --workload NAME."
        )
