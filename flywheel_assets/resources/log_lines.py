"""Log files as lines: plain, gzip or zstd, from a path or standard input, in bounded memory. A JSON array counts as lines.

What belongs here: opening, decompressing and cutting into numbered lines, whatever is in them. What does not: where the
elements of an array end (`json_arrays`), what a line means (`core.records`) and where it goes (`ingest`).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from flywheel_assets.core.records import Reject
from flywheel_assets.resources.json_arrays import ArrayBroken, elements, is_array
from flywheel_assets.resources.long_lines import LongLine

STDIN = "-"

_BLOCK_BYTES = 1 << 20
# Compressed input goes in by pieces this small because one piece may unfold to a thousand times its size (gzip), or to
# thirty thousand times (zstd): the piece bounds the memory that hostile input can take.
_COMPRESSED_PIECE_BYTES = 1024
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNREADABLE = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"PAR1": "Parquet"}


class LogFileError(Exception):
    """A log cannot be read, or not to its end; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive lines of one log, about a megabyte. A line too long to be held is already a reject.

    `origin` is the path, or `-`; `first_line` numbers the first of `lines`, from 1. Blank lines are kept, and counted. Of a
    file that is one JSON array, the elements are the lines.
    """

    origin: str
    first_line: int
    lines: list[bytes | Reject]


def check_readable(origin: str) -> None:
    """Raise LogFileError unless `origin` is `-` or a file that can be opened, before anything is read from any."""
    if origin == STDIN:
        return
    try:
        if Path(origin).is_dir():
            raise LogFileError(f"{origin} is a folder; name the log files in it.")
        with Path(origin).open("rb"):
            pass
    except OSError as error:
        raise LogFileError(f"{origin} cannot be read: {error.strerror}. Check the path and its permissions.") from error


def read_chunks(origin: str, *, max_bytes: int) -> Iterator[Chunk]:
    """The lines of a log in order; memory is a few times the larger of one megabyte and `max_bytes`.

    gzip and zstd are known by their first bytes, a byte order mark is dropped. Lines longer than `max_bytes` come as
    rejects. Raises LogFileError where a compressed log is cut off or damaged, after all whole lines before that place.
    """
    try:
        with nullcontext(sys.stdin.buffer) if origin == STDIN else Path(origin).open("rb") as stream:
            blocks = _plain_blocks(origin, stream)
            first = next(blocks, b"")
            cut = _cut_array if is_array(first) else _cut_into_lines
            yield from cut(origin, chain([first], blocks), max_bytes)
    except OSError as error:
        raise LogFileError(f"{origin} cannot be read to its end: {error.strerror or error}.") from error


def _cut_into_lines(origin: str, blocks: Iterable[bytes], max_bytes: int) -> Iterator[Chunk]:
    number, tail = 1, b""
    long_line: LongLine | None = None
    for block in blocks:
        rest = block
        if long_line is not None:
            end = rest.find(b"\n")
            if end < 0:
                long_line.extend(rest)
                continue
            long_line.extend(rest[:end])
            yield Chunk(origin, number, [long_line.reject(max_bytes)])
            number, long_line, rest = number + 1, None, rest[end + 1 :]
        lines: list[bytes | Reject] = [*(tail + rest).split(b"\n")]
        tail = bytes(lines.pop())  # type: ignore[arg-type]  # what split gave is bytes
        if lines:
            yield Chunk(origin, number, lines)
            number += len(lines)
        if len(tail) > max_bytes:
            long_line, tail = LongLine(tail), b""
    if long_line is not None:
        yield Chunk(origin, number, [long_line.reject(max_bytes)])
    elif tail:
        yield Chunk(origin, number, [tail])


def _cut_array(origin: str, blocks: Iterable[bytes], max_bytes: int) -> Iterator[Chunk]:
    number = 1
    try:
        for lines in elements(blocks, max_bytes):
            yield Chunk(origin, number, lines)
            number += len(lines)
    except ArrayBroken as error:
        raise LogFileError(
            f"{origin} {error}. Its first {number - 1} elements are kept; once the file is mended, ingest it again:"
            " nothing is stored twice."
        ) from error


def _plain_blocks(origin: str, stream: BinaryIO) -> Iterator[bytes]:
    """Decompressed blocks of a stream, without a byte order mark."""
    head = stream.read(_BLOCK_BYTES)
    for magic, kind in _UNREADABLE.items():
        if head.startswith(magic):
            raise LogFileError(f"{origin} is a {kind} file; JSON lines are read, plain or compressed with gzip or zstd.")
    blocks = _rest(head, stream)
    if head.startswith(_GZIP):
        blocks = _decompressed(origin, "gzip", blocks, lambda: zlib.decompressobj(wbits=31))
    elif head.startswith(_ZSTD):
        blocks = _decompressed(origin, "zstd", blocks, zstandard.ZstdDecompressor().decompressobj)
    first = next(blocks, b"")
    yield first.removeprefix(_BOM)
    yield from blocks


def _rest(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    block = head
    while block:
        yield block
        block = stream.read(_BLOCK_BYTES)


class _Decompressor(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompressed(origin: str, kind: str, blocks: Iterator[bytes], start: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Blocks of about a megabyte out of compressed ones; several members or frames after each other are one log."""
    decompressor: _Decompressor | None = None
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(blocks):
            data = piece
            while data:
                if decompressor is None:
                    # Writers of tapes and blocks pad the last gzip member with zeros.
                    data = data.lstrip(b"\0") if kind == "gzip" else data
                    if not data:
                        break
                    decompressor = start()
                plain = decompressor.decompress(data)
                pieces.append(plain)
                size += len(plain)
                data = b""
                if decompressor.eof:
                    data, decompressor = decompressor.unused_data, None
            if size >= _BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
    except (zlib.error, zstandard.ZstdError) as error:
        yield b"".join(pieces)
        raise LogFileError(
            f"{origin} is damaged ({kind}: {error}). The records before the damage are kept;"
            " once the file is whole, ingest it again: nothing is stored twice."
        ) from error
    yield b"".join(pieces)
    if decompressor is not None:
        raise LogFileError(
            f"{origin} is cut off ({kind} without its end). The records before the cut are kept;"
            " once the file is complete, ingest it again: nothing is stored twice."
        )


def _pieces(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), _COMPRESSED_PIECE_BYTES):
            yield block[start : start + _COMPRESSED_PIECE_BYTES]
