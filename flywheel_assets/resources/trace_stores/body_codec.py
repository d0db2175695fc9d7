"""How record bodies are packed in the local trace store: zstd, with one dictionary a workload.

What belongs here: making a dictionary, packing and unpacking. What does not: where dictionaries are kept (`local`).

Records of one workload repeat the same system message and tools, but each must be readable alone. A dictionary trained on
the first batch holds what they share: bodies shrink five times further than without, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zstandard

# The fastest level: higher ones win little where a dictionary holds what repeats.
_LEVEL = 1
_DICTIONARY_BYTES = 64 << 10
# Fewer samples make no useful dictionary; more take longer to train on and change nothing.
MIN_SAMPLES = 200
_MAX_SAMPLES = 500
_SAMPLE_BYTES = 16 << 10


def train(bodies: Sequence[bytes]) -> bytes | None:
    """A dictionary for bodies like these, in about 0.1 s; None where there are too few, or none that would help."""
    if len(bodies) < MIN_SAMPLES:
        return None
    # From all over the batch: logs are often sorted by something.
    step = max(1, len(bodies) // _MAX_SAMPLES)
    samples: list[bytes | bytearray | memoryview[int]] = [body[:_SAMPLE_BYTES] for body in bodies[::step]]
    try:
        return zstandard.train_dictionary(_DICTIONARY_BYTES, samples).as_bytes()
    except zstandard.ZstdError:
        # Too short or too alike to learn from: they are packed without.
        return None


def packer(dictionary: bytes | None) -> Callable[[bytes], bytes]:
    """A function that packs bodies; for one thread."""
    if dictionary is None:
        return zstandard.ZstdCompressor(level=_LEVEL).compress
    prepared = zstandard.ZstdCompressionDict(dictionary)
    prepared.precompute_compress(level=_LEVEL)
    return zstandard.ZstdCompressor(level=_LEVEL, dict_data=prepared).compress


def unpacker(dictionary: bytes | None) -> Callable[[bytes], bytes]:
    """A function that unpacks bodies, also those packed before there was a dictionary; for one thread."""
    if dictionary is None:
        return zstandard.ZstdDecompressor().decompress
    return zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(dictionary)).decompress
