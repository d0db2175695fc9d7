"""What every trace store promises.

What belongs here: the `TraceStore` protocol, the plain data it speaks in and its errors. What does not: any one store.
`tests/resources/test_local_trace_store.py` holds the promises as a reusable class of tests.

The order of a store is the order of ingestion, never of timestamps: records arrive late, and a cursor on their own clock
would lose them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from flywheel_assets.core.records import Record, Reject

START = "0"
"""The watermark before the first record; every store accepts it, and gives it for a workload it does not know."""


class TraceStoreError(Exception):
    """A trace store cannot do what was asked; the message says which store, why, and what to do."""


class TraceStoreBusy(TraceStoreError):
    """Somebody else kept the store locked for longer than the waiting time. Nothing was written."""


class TraceStoreCorrupt(TraceStoreError):
    """What lies there is not, or no longer, a trace store that this version can read."""


class UnknownWatermark(TraceStoreError):
    """A watermark that this store did not give out: the store was replaced, and must be read from the start."""


@dataclass(frozen=True, slots=True)
class AddResult:
    """What adding records changed.

    `new` counts records stored: ids never seen before, and known ids whose content changed; `updated` says how many of
    them were such changes. `duplicate` counts known ids with unchanged content. `workloads` is `new` by slug.
    """

    new: int = 0
    updated: int = 0
    duplicate: int = 0
    workloads: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkloadSummary:
    """One workload as the store knows it: how many records it holds (one an id), and up to where they go."""

    slug: str
    workload_id: str
    count: int
    watermark: str


class StoredRecord(NamedTuple):
    """One record as it comes out: `seq` grows in ingestion order; `body` is `Record.body`, byte for byte."""

    seq: int
    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A refused line and where it stood: a file name (`-` for standard input) and a line number from 1."""

    reject: Reject
    origin: str
    line_number: int


@dataclass(frozen=True, slots=True)
class RejectCount:
    """How many lines of one workload were refused for one reason, with the latest of them as an example.

    `workload` is None where the lines did not say, or what they said is no workload id.
    """

    workload: str | None
    reason: str
    count: int
    detail: str
    excerpt: str
    origin: str
    line_number: int


@runtime_checkable
class TraceStore(Protocol):
    """Records, idempotent by (workload, id), read in ingestion order. Safe for several processes at once."""

    def add(self, records: Iterable[Record], *, keep_known: bool = False) -> AddResult:
        """Store records, all or none. The last content under an id wins and moves to the end of the order.

        With `keep_known` what is stored under an id stays, and counts as a duplicate, whatever the content.
        """
        ...

    def reject(self, lines: Iterable[RejectedLine]) -> int:
        """Keep refused lines, all or none; returns how many were not known before. Idempotent by the line's content.

        A quarantine is a history: a line stays in it after a corrected one has been accepted.
        """
        ...

    def rejects(self, workload: str | None = None) -> list[RejectCount]:
        """Refused lines counted by workload and reason, most frequent first; of one workload, or of all."""
        ...

    def workloads(self) -> list[WorkloadSummary]:
        """Every workload that ever had a record, by slug. Empty where the store does not exist yet."""
        ...

    def summary(self, workload: str) -> WorkloadSummary:
        """One workload; count 0 and `START` where the store does not know it."""
        ...

    def watermark(self, workload: str) -> str:
        """Opaque: all records of the workload up to now. Equal as long as nothing was added or changed. Cheap."""
        ...

    def count_after(self, workload: str, watermark: str | None) -> int:
        """How many records `read_after` would give. Raises nothing for a watermark of another store: all count then."""
        ...

    def read_after(
        self, workload: str, watermark: str | None, *, until: str | None = None, batch_size: int = 2000
    ) -> Iterator[list[StoredRecord]]:
        """The records after `watermark` (None: from the start) up to and with `until` (None: all), in batches.

        One consistent state of the store, however long the reading takes; memory is one batch. A record whose content
        changed since comes once, at its new place: a reader that goes on from `until` later misses nothing. Raises
        UnknownWatermark for a watermark of another store.
        """
        ...
