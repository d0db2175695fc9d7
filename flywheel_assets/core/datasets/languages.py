"""Languages: what people write in, told from a sample of the records.

What belongs here: choosing the sample and telling the language of a text. What does not: the rest of a profile (`profile`).

The cost is that of the sample, whatever the number of records; the model is part of the library and loaded once a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numpy.typing import NDArray

from flywheel_assets.core.datasets.index import index_tables
from flywheel_assets.core.datasets.segments import Segment, read_bodies
from flywheel_assets.core.rows import Json

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SAMPLE = 200
# ISO 639-3 for "undetermined": too little text, or code, numbers and names that are no language.
UNDETERMINED = "und"
# A wrong language misleads more than none. Short questions reach 0.9 where they are in a language at all.
_CONFIDENCE = 0.5
_LONGEST = 600
_PLACE = ("block_offset", "block_bytes", "position")


def languages_of(records: Path, segments: Sequence[Segment], alive: NDArray[np.bool_]) -> dict[str, int]:
    """How many of a sample of the records that count are in which language, by ISO 639-1 code, the most frequent first.

    `SAMPLE` records at most, evenly spaced over all of them: equal records give an equal answer. Told from what the user
    said; `und` where that is too short to tell.
    """
    rows = np.flatnonzero(alive)
    if rows.size > SAMPLE:
        rows = rows[np.linspace(0, rows.size - 1, SAMPLE).astype(np.int64)]
    counts = Counter(language_of(said) for said in _said(records, segments, rows))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def language_of(text: str) -> str:
    """The ISO 639-1 code of a text's language, or `und`."""
    code: str = _identifier().classify(text)[0]
    return code


@cache
def _identifier() -> LanguageIdentifier:
    # Half a second to load, and nothing but a profile needs it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=_CONFIDENCE)


def _said(records: Path, segments: Sequence[Segment], rows: NDArray[np.int64]) -> Iterator[str]:
    """What the user said in each of these rows, which are numbered over all segments."""
    start = 0
    for segment, table in zip(segments, index_tables(records, segments, _PLACE), strict=True):
        inside = rows[(rows >= start) & (rows < start + segment.rows)] - start
        start += segment.rows
        if inside.size:
            places = (table[column].to_numpy()[inside] for column in _PLACE)
            for body in read_bodies(records / segment.bodies, *places):
                yield _by_the_user(orjson.loads(body)["request"])


def _by_the_user(request: Json) -> str:
    parts: list[str] = []
    for message in request["messages"]:
        if message["role"] == "user":
            content = message.get("content")
            texts = [content] if type(content) is str else [part.get("text") for part in content or ()]
            parts += [text for text in texts if type(text) is str]
    return " ".join(parts)[:_LONGEST]
