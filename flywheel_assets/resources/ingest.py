"""Ingest: from log files to a trace store, with a count of everything.

What belongs here: the order of the work (check, read, parse, store in batches) and the report. What does not: files and
compression (`log_lines`), which format a file is in (`log_formats`), parsing (`core.records`, `core.formats`,
`parse_workers`), storage (`trace_stores`).

A line is atomic: it is a record, a reject or a blank. Stored batches stay stored whatever happens later, and ingesting
the same files again changes nothing but the count of duplicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywheel_assets.core.cleaning import CleaningPolicy, scrub_detail
from flywheel_assets.core.formats import LOG, Format, FormatBroken, format_named
from flywheel_assets.core.records import Record
from flywheel_assets.core.records.types import DEFAULT_SOURCE
from flywheel_assets.core.slugs import BadWorkloadId, workload_slug
from flywheel_assets.resources.log_formats import Log, LogFormatError, recognised_logs
from flywheel_assets.resources.log_lines import STDIN, Chunk, LogFileError, check_readable
from flywheel_assets.resources.parse_workers import Parsed, ParseOptions, ParseWorkerError, parse_chunks
from flywheel_assets.resources.slug_owners import SlugOwners
from flywheel_assets.resources.trace_stores.base import RejectedLine, TraceStore

# One commit a batch. Larger ones store faster (ids arrive in random order), this one still fits in some 50 MB.
_BATCH_RECORDS = 5000
_BATCH_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest changed.

    `new` counts records stored: ids never seen before and known ids whose content changed (`updated` of them);
    `duplicate` known ids with the same content; `rejected` refused lines, by name in `reasons`, whether or not they had
    been refused before; `workloads` is `new` by slug; `formats` names the format each log was read in; `examples` shows
    the first refused line of each reason: where it stood and what is wrong with it, with personal data taken out.
    """

    new: int = 0
    updated: int = 0
    duplicate: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    workloads: dict[str, int] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict, compare=False)
    examples: dict[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The fixed form of `flywheel ingest --json`; with `formats` where something else than logs was read."""
        told = {"formats": dict(self.formats)} if set(self.formats.values()) - {LOG.name} else {}
        return {
            "new": self.new,
            "duplicate": self.duplicate,
            "rejected": self.rejected,
            "reasons": dict(self.reasons),
            "workloads": dict(self.workloads),
            **told,
        }


class IngestError(Exception):
    """Ingest could not do all of its work; `report` is what it did, and None where it did not begin."""

    def __init__(self, message: str, report: IngestReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def ingest(
    sources: Sequence[str | Path],
    store: TraceStore,
    *,
    format_name: str = LOG.name,
    default_workload: str | None = None,
    source: str | None = None,
    max_bytes: int = 4_000_000,
    progress: Callable[[int, str], None] | None = None,
    workers: int | None = None,
    recognised: Callable[[Mapping[str, str]], None] | None = None,
    configured: Sequence[Format] = (),
) -> IngestReport:
    """Read log files (`-` is standard input; plain, gzip or zstd, told by content) into a trace store.

    `format_name` is a format's name, or `auto`: each file is then looked at, and `recognised` is told what was found, by
    origin, before anything is stored. `default_workload` and `source` fill in where a record names none. Lines over
    `max_bytes` are rejected unread. `progress` is called after each batch with the lines taken so far and the log they come
    from. `workers` is the number of parsing processes for long inputs (default: by the CPUs). `configured` are formats that
    read by rules of the settings, in place of those of their names.

    Raises IngestError before anything is stored if a file is missing, `default_workload` is no workload id or needed and
    not given, a format is unknown or cannot be told, or a data set is to pass as traffic; and after everything readable is
    stored, with the report, if a file was cut off or damaged. TraceStoreError passes through.
    """
    origins = _checked(sources, default_workload, source)
    try:
        logs = recognised_logs(origins, format_name, default_workload, max_bytes=max_bytes, configured=configured)
    except LogFormatError as error:
        raise IngestError(f"{error} Nothing was ingested.") from error
    formats = {log.origin: log.format_name for log in logs}
    if source == DEFAULT_SOURCE:
        _refuse_data_sets(formats, default_workload)
    if recognised is not None:
        recognised(formats)
    failures: list[LogFileError] = []
    work = _Work(store, progress, formats)
    options = ParseOptions(max_bytes, default_workload, source, formats, configured)
    try:
        for parsed in parse_chunks(_all_chunks(logs, max_bytes, failures), options, workers=workers):
            work.take(parsed)
    except (ParseWorkerError, FormatBroken) as error:
        work.store()
        raise IngestError(str(error), work.report()) from error
    work.store()
    if failures:
        raise IngestError("\n".join(str(failure) for failure in failures), work.report()) from failures[0]
    return work.report()


def _checked(sources: Sequence[str | Path], default_workload: str | None, source: str | None) -> list[str]:
    origins = [str(origin) for origin in sources]
    if not origins:
        raise IngestError(f"no log file given. Name at least one, or `{STDIN}` for standard input.")
    if origins.count(STDIN) > 1:
        raise IngestError(f"`{STDIN}` (standard input) is given {origins.count(STDIN)} times; it can be read once.")
    if source == "":
        raise IngestError("the source name is empty. Leave it out, or name one.")
    try:
        if default_workload is not None:
            workload_slug(default_workload)
        for origin in origins:
            check_readable(origin)
    except BadWorkloadId as error:
        raise IngestError(f"the default workload cannot be used: {error}.") from error
    except LogFileError as error:
        raise IngestError(f"{error} Nothing was ingested.") from error
    return origins


def _refuse_data_sets(formats: Mapping[str, str], workload: str | None) -> None:
    """Rows that nobody sent would be examined on as if users had."""
    for origin, name in formats.items():
        if name != LOG.name:
            raise IngestError(
                f"{origin} is {name}, a data set and no log, and cannot have the source '{DEFAULT_SOURCE}': candidates would"
                " be examined on its rows as if users had sent them. Leave --source out; where that is what you want, say so"
                f" in flywheel.yaml: workloads: {{{workload or 'NAME'}: {{train_only_sources: []}}}}. Nothing was ingested."
            )


def _all_chunks(logs: list[Log], max_bytes: int, failures: list[LogFileError]) -> Iterator[Chunk]:
    """Chunks of all logs; a log that fails on the way is noted, and the others are still read."""
    for log in logs:
        try:
            yield from log.chunks(max_bytes=max_bytes)
        except LogFileError as failure:
            failures.append(failure)


class _Work:
    """Records and rejects on their way into the store, and the counts so far."""

    def __init__(self, store: TraceStore, progress: Callable[[int, str], None] | None, formats: Mapping[str, str]) -> None:
        self._store = store
        self._owners = SlugOwners(store)
        self._progress = progress
        self._formats = formats
        self._records: list[Record] = []
        self._yielding: list[Record] = []
        self._keeps_known = {origin for origin, name in formats.items() if getattr(format_named(name), "keeps_known", False)}
        self._rejects: list[RejectedLine] = []
        self._bytes = 0
        self._origin = ""
        self._new = self._updated = self._duplicate = self._rejected = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._workloads: Counter[str] = Counter()

    def take(self, parsed: Parsed) -> None:
        """Take what a chunk held; a full batch is stored."""
        self._origin = parsed.origin
        kept = self._yielding if parsed.origin in self._keeps_known else self._records
        kept += parsed.records
        self._bytes += sum(len(record.body) for record in parsed.records)
        self._rejects += [RejectedLine(reject, parsed.origin, number) for number, reject in parsed.rejects]
        held = len(self._records) + len(self._yielding) + len(self._rejects)
        if held >= _BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            self.store()

    def store(self) -> None:
        """Store what is at hand and count it."""
        if not self._records and not self._yielding and not self._rejects:
            return
        added = [self._store.add(self._owned(self._records))]
        if self._yielding:
            added.append(self._store.add(self._owned(self._yielding), keep_known=True))
        self._store.reject(self._rejects)
        for one in added:
            self._new += one.new
            self._updated += one.updated
            self._duplicate += one.duplicate
            self._workloads.update(one.workloads)
        self._rejected += len(self._rejects)
        self._reasons.update(str(line.reject.reason) for line in self._rejects)
        for line in self._rejects:
            if str(line.reject.reason) not in self._examples:
                detail = scrub_detail(line.reject.detail, CleaningPolicy())
                self._examples[str(line.reject.reason)] = f"{line.origin} line {line.line_number}: {detail}"
        self._records, self._yielding, self._rejects, self._bytes = [], [], [], 0
        if self._progress is not None:
            self._progress(self._new + self._duplicate + self._rejected, self._origin)

    def _owned(self, records: list[Record]) -> list[Record]:
        """The records whose slug is theirs; the others are refused."""
        kept, refused = self._owners.sort(records)
        self._rejects += [RejectedLine(reject, self._origin, 0) for reject in refused]
        return kept

    def report(self) -> IngestReport:
        """The counts so far."""
        return IngestReport(
            self._new,
            self._updated,
            self._duplicate,
            self._rejected,
            dict(self._reasons.most_common()),
            dict(sorted(self._workloads.items())),
            dict(self._formats),
            dict(self._examples),
        )
