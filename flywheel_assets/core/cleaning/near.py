"""Near-duplicates: conversations whose user and tool text is almost the same share a key.

What belongs here: the text that is compared, its signature, and the keys (bands of the signature). What does not: what
sharing a key means (`core.datasets.assignment`).

The signature is a MinHash (rensa, in Rust) over word triples. It is cut into `BANDS` bands; two texts share a band's key
where all its values agree, which is likely from `similarity` on and rare well below it: at 0.9, 80% of pairs that similar
are found and 99% of pairs with 0.95, while 3% of pairs with 0.7 are taken for near-duplicates too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np
from rensa import RMinHash

from flywheel_assets.core.rows import Json

BANDS = 8
# Of pairs exactly as similar as asked for, this share is found.
_FOUND_SHARE = 0.8
_MOST_ROWS = 64
_SEED = 42
# Of fewer words nothing is left when one differs: such text is compared as a whole, which the prompt's hash does.
MIN_WORDS = 8
_MAX_WORDS = 20_000
_WORD = re.compile(r"\w+")
_COMPARED_ROLES = ("user", "tool")

Keys = np.ndarray[tuple[int, int], np.dtype[np.uint64]]


def compared_text(messages: Sequence[Json]) -> str:
    """What of a conversation is compared: what users and tools said. The rest all records of a workload share."""
    return "\n".join([_text(message.get("content")) for message in messages if message["role"] in _COMPARED_ROLES])


def near_keys(texts: Sequence[str], similarity: float) -> list[list[int]]:
    """The keys of each text: `BANDS` 64-bit numbers, never 0, or none where the text is too short to be compared."""
    shingled = [_shingles(text) for text in texts]
    compared = [position for position, shingles in enumerate(shingled) if shingles]
    keys: list[list[int]] = [[] for _ in texts]
    if not compared:
        return keys
    rows = rows_of(similarity)
    matrix = RMinHash.digest_matrix_from_token_sets([shingled[position] for position in compared], BANDS * rows, _SEED)
    signatures = np.array(matrix.to_rows(), np.uint32).astype("<u4")
    for position, signature in zip(compared, signatures, strict=True):
        content = signature.tobytes()
        keys[position] = [_key(band, content[4 * band * rows : 4 * (band + 1) * rows]) for band in range(BANDS)]
    return keys


def rows_of(similarity: float) -> int:
    """Values a band: as many as leave pairs of this similarity `_FOUND_SHARE` of chance to share one of the bands."""
    agreement = 1 - (1 - _FOUND_SHARE) ** (1 / BANDS)
    return max(1, min(_MOST_ROWS, int(math.log(agreement) / math.log(similarity))))


def _shingles(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    if len(words) < MIN_WORDS:
        return []
    del words[_MAX_WORDS:]
    return [f"{a} {b} {c}" for a, b, c in zip(words, words[1:], words[2:], strict=False)]


def _key(band: int, content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=bytes([band])).digest(), "little") or 1


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join([part["text"] for part in parts if type(part.get("text")) is str])
