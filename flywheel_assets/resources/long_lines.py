"""Lines too long to be held.

What belongs here: what is kept of such a line. What does not: cutting files into lines (`log_lines`, `json_arrays`).
"""

from __future__ import annotations

import hashlib

from flywheel_assets.core.records import Reject, oversize_reject
from flywheel_assets.core.records.types import HASH_BYTES

_HEAD_BYTES = 1024


class LongLine:
    """A line longer than allowed: its start, its size and its hash are all that is held of it."""

    def __init__(self, start: bytes) -> None:
        self._head = start[:_HEAD_BYTES]
        self._size = 0
        self._hash = hashlib.sha256()
        self.extend(start)

    def extend(self, more: bytes) -> None:
        """More of the line."""
        self._size += len(more)
        self._hash.update(more)

    def reject(self, max_bytes: int) -> Reject:
        """The line's reject, now that it is complete."""
        line_hash = self._hash.digest()[:HASH_BYTES]
        return oversize_reject(self._head, size=self._size, max_bytes=max_bytes, line_hash=line_hash)
