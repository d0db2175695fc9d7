"""JSON arrays as lines: the elements of one large array, each as it stands in the file, in bounded memory.

What belongs here: finding where elements end. What does not: what is in them; an element that is no JSON is cut out all the
same, and refused where it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import orjson

from flywheel_assets.core.records import Reject
from flywheel_assets.resources.long_lines import LongLine

_BEGINS_ARRAY = re.compile(rb"\s*\[\s*[{\]]")
# A whole string, or one character that tells where we are. Possessive: text from strangers must not be read twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)
_INSIDE_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _COMMA = b'",'
_OPENING = frozenset(b"[{")


class ArrayBroken(ValueError):
    """The text is no whole array; the message says where it ends."""


def is_array(head: bytes) -> bool:
    """Whether a file that begins like this is one array of objects, rather than lines that hold a list each."""
    if not _BEGINS_ARRAY.match(head):
        return False
    line, _, more = head.lstrip().partition(b"\n")
    if not more.strip():
        return True
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return True
    return False


def elements(blocks: Iterable[bytes], max_bytes: int) -> Iterator[list[bytes | Reject]]:
    """The elements of an array, about a block's worth at a time; one longer than `max_bytes` is a reject.

    Raises ArrayBroken after all whole elements: the array is not closed, or more follows it.
    """
    cutter = _Cutter(max_bytes)
    for block in blocks:
        found = cutter.take(block)
        if found:
            yield found
        if cutter.trailing:
            raise ArrayBroken("more follows after the end of the JSON array: a file is one array, or JSON lines")
    if not cutter.ended:
        raise ArrayBroken("is cut off: a JSON array without its end")


class _Cutter:
    """Where in the array we are, between one block and the next."""

    def __init__(self, max_bytes: int) -> None:
        self.ended = False
        self.trailing = False
        self._max_bytes = max_bytes
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._long: LongLine | None = None

    def take(self, block: bytes) -> list[bytes | Reject]:
        """The elements that end in this block."""
        if self.ended:
            self.trailing = bool(block.strip())
            return []
        found: list[bytes | Reject] = []
        start, position = 0, self._past_string(block, 0) if self._in_string else 0
        for token in _TOKEN.finditer(block, position):
            at, character = token.start(), block[token.start()]
            if character == _QUOTE:
                if token.end() - at == 1:
                    self._past_string(block, at + 1)
                    break
            elif character in _OPENING:
                self._depth += 1
                start = at + 1 if self._depth == 1 else start
            elif character == _COMMA:
                if self._depth == 1:
                    found.append(self._element(block[start:at]))
                    start = at + 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    found.append(self._element(block[start:at]))
                    self.ended, self.trailing = True, bool(block[at + 1 :].strip())
                    return found
        self._keep(block[start:])
        return found

    def _past_string(self, block: bytes, position: int) -> int:
        """Where the string ends that `position` is in; the end of the block where that lies further on."""
        end = _INSIDE_STRING.match(block, position + self._escaped).end() if block else 0  # type: ignore[union-attr]
        self._in_string = end >= len(block) or block[end] != _QUOTE
        # What stopped before the end and is no quote is a backslash, whose other half is in the next block.
        self._escaped = end < len(block) and self._in_string
        return len(block) if self._in_string else end + 1

    def _element(self, last: bytes) -> bytes | Reject:
        self._keep(last)
        element = self._long.reject(self._max_bytes) if self._long else b"".join(self._pieces).strip()
        self._pieces, self._size, self._long = [], 0, None
        return element

    def _keep(self, piece: bytes) -> None:
        if self._long is not None:
            self._long.extend(piece)
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._long = LongLine(b"".join(self._pieces))
            self._pieces = []
