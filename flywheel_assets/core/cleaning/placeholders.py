"""Placeholders: what stands where a value stood, the same for the same value throughout one conversation.

What belongs here: numbering, the allow-list, and counting. What does not: finding values (`detect`). Nothing here outlives
the conversation: there is no mapping back, and no hash of a value.
"""

from __future__ import annotations

import re
from collections import Counter

from flywheel_assets.core.cleaning.detect import find, find_field
from flywheel_assets.core.cleaning.found import PLACEHOLDER, Found
from flywheel_assets.core.cleaning.policy import Entity
from flywheel_assets.core.patterns import Pattern

# Shorter ones are words that stand elsewhere for themselves.
_SHORTEST_REPEATED = 6


class Placeholders:
    """The placeholders of one conversation. `body` is its raw JSON: placeholders it already holds keep their numbers."""

    def __init__(self, entities: frozenset[Entity], allow: Pattern | None, body: bytes) -> None:
        self.replaced: Counter[Entity] = Counter()
        self._entities, self._allow, self._body = entities, allow, body
        self._names: dict[tuple[Entity, str], str] = {}
        self._written: dict[str, str] = {}
        self._last: dict[str, int] | None = None

    def scrub(self, text: str, field: str | None = None) -> str:
        """The text with placeholders; `field` is the name of the field it is the whole value of."""
        if field is not None and (whole := find_field(field, text)) is not None and self._goes(text, whole):
            return self._name(text, whole)
        found = find(text)
        if not found:
            return text
        parts = []
        at = 0
        for value in found:
            written = text[value.start : value.end]
            if self._goes(written, value):
                parts += [text[at : value.start], self._name(written, value)]
                at = value.end
        return "".join(parts) + text[at:] if parts else text

    def repeated(self) -> re.Pattern[str] | None:
        """Matches values that were found somewhere, as they were written there: elsewhere nothing may tell what they are."""
        values = sorted(filter(_is_telling, self._written), key=len, reverse=True)
        return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, values)) + r")(?!\w)") if values else None

    def replace_repeated(self, text: str, values: re.Pattern[str]) -> str:
        """The text with the values of `repeated` replaced."""
        return values.sub(self._name_again, text)

    def _goes(self, written: str, value: Found) -> bool:
        return value.entity in self._entities and not (self._allow is not None and self._allow.fullmatch(written))

    def _name(self, written: str, value: Found) -> str:
        name = self._names.get((value.entity, value.key))
        if name is None:
            name = f"<{value.entity.name}_{self._next(value.entity.name)}>"
            self._names[value.entity, value.key] = name
        self._written.setdefault(written, name)
        self.replaced[value.entity] += 1
        return name

    def _name_again(self, match: re.Match[str]) -> str:
        name = self._written[match[0]]
        self.replaced[Entity[name[1 : name.rindex("_")]]] += 1
        return name

    def _next(self, entity: str) -> int:
        if self._last is None:
            self._last = {}
            for held in PLACEHOLDER.finditer(self._body.decode("utf-8", "replace")):
                self._last[held[1]] = max(self._last.get(held[1], 0), int(held[2]))
        self._last[entity] = number = self._last.get(entity, 0) + 1
        return number


def _is_telling(value: str) -> bool:
    return len(value) >= _SHORTEST_REPEATED and not value.isalpha()
