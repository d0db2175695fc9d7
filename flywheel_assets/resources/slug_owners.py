"""Slug owners: one workload id a slug.

An id that is no slug by itself gets one with a hash in it, and nothing keeps another application from writing just that text
as its id. Two workloads in one would be evaluated and decided on as if they were one kind of call, so the first id that a
store knows under a slug owns it, and records of any other id are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from flywheel_assets.core.records import Record, Reject, RejectReason
from flywheel_assets.core.records.parse import EXCERPT_CHARACTERS
from flywheel_assets.core.records.types import HASH_BYTES
from flywheel_assets.resources.trace_stores import TraceStore


class SlugOwners:
    """Which workload id each slug of a store belongs to; asked of the store once."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._owners: dict[str, str] | None = None

    def sort(self, records: Iterable[Record]) -> tuple[list[Record], list[Reject]]:
        """The records of owners, and the refusals of all others."""
        if self._owners is None:
            self._owners = {summary.slug: summary.workload_id for summary in self._store.workloads()}
        kept, refused = [], []
        for record in records:
            owner = self._owners.setdefault(record.workload, record.workload_id)
            if owner == record.workload_id:
                kept.append(record)
            else:
                refused.append(_refusal(record, owner))
        return kept, refused


def _refusal(record: Record, owner: str) -> Reject:
    detail = (
        f"workload_id {record.workload_id!r} has the slug '{record.workload}', which belongs to {owner!r} already. Rename "
        "one of the two"
    )
    line_hash = hashlib.blake2b(record.body, digest_size=HASH_BYTES).digest()
    excerpt = record.body[:EXCERPT_CHARACTERS].decode("utf-8", "ignore")
    return Reject(RejectReason.BAD_WORKLOAD_ID, detail, excerpt, line_hash, record.workload)
