"""Bounded HTTP: what servers of strangers may send us, and where their answers may lead us.

An endpoint is anybody's: it may answer without end, answer a kilobyte that unpacks to a gigabyte, or send us, conversation
and all, to somebody else. What belongs here: the limits, and clients that keep them. What does not: what an answer means.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import httpx
import httpx2

# A completion of 100,000 tokens is below 1 MB; a list of all models of a large gateway as well.
MAX_BYTES = 8 << 20
NOT_PACKED = {"accept-encoding": "identity"}
_UNPACKABLE = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# What the body is, after it was unpacked here.
_OF_THE_PACKED_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class UntrustworthyAnswer(ValueError):
    """An answer that is not read to its end; the message says why."""


async def bounded(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """An answer whose body was not read yet, whole: packed and unpacked no further than `MAX_BYTES`.

    UntrustworthyAnswer beyond; the connection is closed then.
    """
    found = bytearray()
    try:
        async for chunk in response.aiter_raw():
            _take(found, chunk)
    finally:
        await response.aclose()
    body = unpacked(bytes(found), response.headers.get("content-encoding", ""))
    headers = _without_packing(response.headers.raw)
    return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


def unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its `Content-Encoding`; UntrustworthyAnswer where it is none of ours, broken, or too large."""
    for name in reversed([part.strip().lower() for part in encoding.split(",") if part.strip()]):
        if name == "identity":
            continue
        if name not in _UNPACKABLE:
            raise UntrustworthyAnswer(f"it is packed as '{name[:20]}', which was not asked for")
        machine = zlib.decompressobj(_UNPACKABLE[name])
        try:
            body = machine.decompress(body, MAX_BYTES + 1)
        except zlib.error as error:
            raise UntrustworthyAnswer(f"it is packed as '{name}', and broken ({error})") from None
        if len(body) > MAX_BYTES:
            raise UntrustworthyAnswer(f"it unpacks to more than {MAX_BYTES >> 20} MB")
    return body


def bounded_get(client: httpx.Client, url: str) -> httpx.Response:
    """`client.get` that reads no more than `MAX_BYTES`; UntrustworthyAnswer beyond. Raises what httpx raises."""
    with client.stream("GET", url, headers=NOT_PACKED) as response:
        found = bytearray()
        for chunk in response.iter_raw():
            _take(found, chunk)
        body = unpacked(bytes(found), response.headers.get("content-encoding", ""))
    headers = _without_packing(response.headers.raw)
    return httpx.Response(response.status_code, headers=headers, content=body, request=response.request)


def _take(found: bytearray, chunk: bytes) -> None:
    found += chunk
    if len(found) > MAX_BYTES:
        raise UntrustworthyAnswer(f"it is longer than {MAX_BYTES >> 20} MB")


def _without_packing(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0].decode("latin-1").lower() not in _OF_THE_PACKED_BODY]
