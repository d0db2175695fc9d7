"""Collect: from a source into the trace store, with a count of everything.

What belongs here: the order of the work (pull, judge, store, and only then the next cursor) and its bounds. What does not:
any one source, and who keeps the cursor: a sensor, or a file of `flywheel pull`.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from flywheel_assets.core.records import Record, Reject, RejectReason, parse_record
from flywheel_assets.core.records.parse import EXCERPT_CHARACTERS
from flywheel_assets.core.records.types import HASH_BYTES
from flywheel_assets.resources.ingest import IngestReport
from flywheel_assets.resources.slug_owners import SlugOwners
from flywheel_assets.resources.sources.base import Pull, PulledRecord, PulledReject, SourceError, TraceSource, title
from flywheel_assets.resources.trace_stores.base import RejectedLine, TraceStore


@dataclass(frozen=True, slots=True)
class Collected:
    """What collecting from one source changed, and where to go on.

    `cursor` stands behind everything that is stored. `failure` is why it stopped before its bounds, after at least one step
    had been stored; `resume_at` is when the source wants to be asked again (epoch seconds). `newly_rejected` counts what had
    not been refused before: a source that reads an overlap again brings the same refusals again.
    """

    source: str
    report: IngestReport
    cursor: str
    done: bool
    note: str
    resume_at: float | None = None
    failure: SourceError | None = None
    newly_rejected: int = 0

    def sentence(self) -> str:
        """What happened, for a person: `Langfuse: nothing new, read up to 12:03 UTC.`"""
        counts = [f"{self.report.new:,} new records"] if self.report.new else ["nothing new"]
        if self.newly_rejected:
            counts.append(f"{self.newly_rejected:,} refused")
        if self.failure is not None:
            return f"{self.source}: {', '.join(counts)}; then: {self.failure} What was read is stored; going on there."
        note = self.note if self.done else f"more to come ({self.note})" if self.note else "more to come"
        return f"{self.source}: {', '.join(counts)}{f', {note}' if note else ''}."


def collect(
    source: TraceSource,
    store: TraceStore,
    cursor: str | None,
    *,
    deadline: float,
    max_bytes: int,
    max_records: int | None = None,
    progress: Callable[[IngestReport], None] | None = None,
) -> Collected:
    """Pull steps and store them until the source is done, `deadline` (`time.monotonic`) or `max_records` is reached.

    A step is stored whole before its cursor counts, so whatever happens, going on from the last cursor loses nothing and
    the store keeps everything once. Raises SourceError where the first step already fails.
    """
    tally = _Tally(store)
    pull: Pull | None = None
    while True:
        try:
            pull = source.pull(cursor, deadline=deadline)
        except SourceError as error:
            if pull is None:
                raise
            return Collected(title(source), tally.report(), pull.cursor, False, pull.note, None, error, tally.newly_rejected)
        _keep(source, pull, store, tally, max_bytes)
        cursor = pull.cursor
        if progress is not None:
            progress(tally.report())
        out_of_bounds = time.monotonic() >= deadline or (max_records is not None and tally.seen >= max_records)
        if pull.done or out_of_bounds:
            report, waiting = tally.report(), pull.resume_at
            return Collected(title(source), report, cursor, pull.done, pull.note, waiting, None, tally.newly_rejected)


def _keep(source: TraceSource, pull: Pull, store: TraceStore, tally: _Tally, max_bytes: int) -> None:
    """Store a step: its records, and then what of it is no record."""
    now = time.time()
    records: list[Record] = []
    rejected = [RejectedLine(_rejected(source, one), _storable(one.origin) or source.name, 1) for one in pull.rejects]
    for pulled in pull.records:
        parsed = _parsed(pulled, max_bytes, now)
        if isinstance(parsed, Record):
            records.append(parsed)
        else:
            rejected.append(RejectedLine(parsed, _storable(pulled.origin) or source.name, 1))
    records, refused = tally.owners.sort(records)
    rejected += [RejectedLine(reject, source.name, 1) for reject in refused]
    if records:
        added = store.add(records)
        tally.new += added.new
        tally.updated += added.updated
        tally.duplicate += added.duplicate
        tally.workloads.update(added.workloads)
    if rejected:
        tally.newly_rejected += store.reject(rejected)
        tally.reasons.update(str(line.reject.reason) for line in rejected)
    tally.seen += len(pull.records) + len(pull.rejects)


def _parsed(pulled: PulledRecord, max_bytes: int, now: float) -> Record | Reject:
    try:
        line = orjson.dumps(pulled.content)
    except orjson.JSONEncodeError as error:
        detail = f"the source gave something that cannot be written as JSON ({error})"
        return Reject(
            RejectReason.NOT_JSON, detail, _storable(pulled.origin)[:EXCERPT_CHARACTERS], _digest(repr(pulled.content))
        )
    return parse_record(line, max_bytes=max_bytes, received_at=now)


def _rejected(source: TraceSource, reject: PulledReject) -> Reject:
    line_hash = _digest(f"{source.name}\0{reject.key}\0{reject.reason}")
    excerpt = _storable(reject.excerpt)[:EXCERPT_CHARACTERS]
    return Reject(reject.reason, _storable(reject.detail), excerpt, line_hash, reject.workload)


def _storable(text: str) -> str:
    """Half a surrogate pair, as a cut text may end in, has no UTF-8: one such row must not keep all others out."""
    return text.encode("utf-8", "replace").decode()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


class _Tally:
    """Counts while steps come in, and which workload ids own their slugs."""

    def __init__(self, store: TraceStore) -> None:
        self.owners = SlugOwners(store)
        self.new = self.updated = self.duplicate = self.newly_rejected = self.seen = 0
        self.reasons: Counter[str] = Counter()
        self.workloads: Counter[str] = Counter()

    def report(self) -> IngestReport:
        """The counts so far."""
        return IngestReport(
            self.new,
            self.updated,
            self.duplicate,
            sum(self.reasons.values()),
            dict(self.reasons.most_common()),
            dict(sorted(self.workloads.items())),
        )
