"""Windows: watermarks for an index that others write to, where documents become visible late and out of order.

What belongs here: what a watermark says and how it is written as text. What does not: asking the server (`existing`).

A watermark describes a *set* of documents: everything up to `overlap` before the newest one seen, and of the documents
inside that last window those that it lists. So a reader that goes on from it gets what became visible since, however old
its time, as long as it was no later than the overlap, and nothing it has seen.

The list is bounded. Up to `MOST_SINGLE` documents are listed one by one (6 bytes each). Of more, neighbours in time are
taken together, `MOST_GROUPS` groups at most, each with one digest: a group in which nothing came late is known as seen;
one in which something did is read again as a whole. Nothing is missed then either, and records are kept by id anyway.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_SINGLE = 192
MOST_GROUPS = 128
_DIGEST_BYTES = 6
_TEXT = re.compile(r"([0-9a-f]{8})\.([0-9]+)\.([sg])([A-Za-z0-9_-]*)")


class Seen(NamedTuple):
    """A document in the window: its order (epoch milliseconds) and its id."""

    order: int
    id: str


class BadWindow(ValueError):
    """A text that is no watermark of a window."""


@dataclass(frozen=True, slots=True)
class Window:
    """The watermark of one workload: `high` is the newest order seen, in epoch milliseconds.

    Either `singles` lists the documents of the window, or `groups` holds (last order, digest) of runs of them, ascending.
    """

    generation: str
    high: int
    singles: frozenset[bytes]
    groups: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(cls, generation: str, high: int, seen: Sequence[Seen]) -> Window:
        """The window whose documents are `seen`."""
        if len(seen) <= MOST_SINGLE:
            return cls(generation, high, frozenset(_digest(one) for one in seen))
        inside = sorted(seen)
        size = -(-len(inside) // MOST_GROUPS)
        groups: list[tuple[int, bytes]] = []
        run: list[Seen] = []
        for place, one in enumerate(inside):
            run.append(one)
            # Documents of one millisecond stay together: a group is found again by its last one.
            if len(run) >= size and (place + 1 == len(inside) or inside[place + 1].order != one.order):
                groups.append((one.order, _digest_of_all(run)))
                run = []
        if run:
            groups.append((run[-1].order, _digest_of_all(run)))
        return cls(generation, high, frozenset(), tuple(groups))

    @classmethod
    def parse(cls, text: str) -> Window:
        """The inverse of `text`; BadWindow where it is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise BadWindow(text)
        generation, high, form, packed = match[1], int(match[2]), match[3], match[4]
        try:
            content = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        except ValueError:
            raise BadWindow(text) from None
        width = _DIGEST_BYTES if form == "s" else _DIGEST_BYTES + 4
        if len(content) % width:
            raise BadWindow(text)
        parts = [content[at : at + width] for at in range(0, len(content), width)]
        if form == "s":
            return cls(generation, high, frozenset(parts))
        groups = tuple((high - struct.unpack(">I", part[:4])[0], part[4:]) for part in parts)
        return cls(generation, high, frozenset(), groups)

    def text(self) -> str:
        """As a watermark: 2,600 characters at most, and some 20 where little came lately."""
        if self.groups:
            content = b"".join(struct.pack(">I", self.high - last) + digest for last, digest in self.groups)
        else:
            content = b"".join(sorted(self.singles))
        packed = base64.urlsafe_b64encode(content).decode().rstrip("=")
        return f"{self.generation}.{self.high}.{'g' if self.groups else 's'}{packed}"

    def holds(self, one: Seen) -> bool:
        """Whether a document inside the window was seen; with groups, whether it may have been."""
        return bool(self.groups) or _digest(one) in self.singles

    def unseen(self, inside: Sequence[Seen]) -> list[Seen]:
        """Those of the documents that are inside the window now that were not seen (or, with groups, may not have been)."""
        if not self.groups:
            return [one for one in inside if _digest(one) not in self.singles]
        ends = [last for last, _ in self.groups]
        runs: dict[int, list[Seen]] = {}
        for one in sorted(inside):
            runs.setdefault(bisect_left(ends, one.order), []).append(one)
        unseen: list[Seen] = []
        for number, run in runs.items():
            if number == len(ends) or _digest_of_all(run) != self.groups[number][1]:
                unseen += run
        return unseen


def _digest(one: Seen) -> bytes:
    return hashlib.blake2b(f"{one.order} {one.id}".encode(), digest_size=_DIGEST_BYTES).digest()


def _digest_of_all(run: Sequence[Seen]) -> bytes:
    return hashlib.blake2b(b"".join(_digest(one) for one in run), digest_size=_DIGEST_BYTES).digest()
