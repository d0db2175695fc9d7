"""Detection: every value in a text that must go, each character in one finding at most.

What belongs here: which detectors look at a text, in which order, and who wins. What does not: the detectors (`secrets`,
`personal`), and what stands there afterwards (`placeholders`).

Most text holds nothing. One cheap expression a detector says so, and the expensive ones are not even started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from flywheel_assets.core.cleaning import personal, secrets
from flywheel_assets.core.cleaning.found import PLACEHOLDER, Found, digits_of
from flywheel_assets.core.cleaning.policy import Entity

Detector = Callable[[str], Iterator[Found]]

_NUMBERS = r"\d(?:[ .\u00a0/()-]{0,3}\d){6}"
_ADDRESSES = r"\d\.\d{1,3}\.\d|[0-9a-fA-F]:[0-9a-fA-F]{0,4}:|[0-9a-fA-F]{2}-[0-9a-fA-F]{2}-[0-9a-fA-F]{2}-|::[0-9a-fA-F]"
# In the order of who wins: what says itself what it is, then what its surroundings say, then numbers by their form.
_DETECTORS: tuple[tuple[str, Detector], ...] = (
    ("-----BEGIN|PuTTY-User", secrets.private_keys),
    (r"eyJ", secrets.json_web_tokens),
    (secrets.API_KEY_HINT, secrets.marked_keys),
    (r"://[^\s/]*@|(?i:sig(?:nature)?=)", secrets.in_urls),
    (r"(?i:bearer|basic|authorization)\s", secrets.in_headers),
    (secrets.ASSIGNMENT_HINT, secrets.assigned),
    (r"@|%40", personal.emails),
    (r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]", personal.ibans),
    (_NUMBERS, personal.cards),
    (_NUMBERS, personal.social_security_numbers),
    (_NUMBERS, personal.phones),
    (_ADDRESSES, personal.network_addresses),
)
# Without a digit, an @, an assignment, a long word or the name of a header's scheme there is nothing to find.
_SOMETHING = re.compile(r"[0-9@:=]|[A-Za-z_-]{16}|(?i:basic|bearer)\s")
_HINTED = tuple((re.compile(hint), detect) for hint, detect in _DETECTORS)
# UUIDs and timestamps: their digits are no number of anybody's. Behind a word such as `api_key=` a UUID still is one.
_NO_NUMBER = re.compile(
    r"(?a)\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?"
)
_NUMERIC = frozenset({Entity.PHONE, Entity.CARD, Entity.SSN, Entity.IP, Entity.MAC, Entity.IBAN})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_SNAKE = re.compile(r"\W+")
_LONGEST_KEY = 64


def find(text: str) -> list[Found]:
    """Every value found, in the order of the text, none overlapping another or a placeholder."""
    found: list[Found] = []
    if _SOMETHING.search(text) is None:
        return found
    # Characters that are spoken for: a mark each, so that a text full of values costs no more than its length.
    unnumbered: bytearray | None = None
    for hint, detect in _HINTED:
        if hint.search(text) is None:
            continue
        for value in detect(text):
            if value.entity in _NUMERIC:
                if unnumbered is None:
                    unnumbered = _marked(text, _NO_NUMBER)
                if unnumbered.find(1, value.start, value.end) >= 0:
                    continue
            found.append(value)
    if not found:
        return found
    taken = _marked(text, PLACEHOLDER)
    kept: list[Found] = []
    for value in found:
        if taken.find(1, value.start, value.end) < 0:
            taken[value.start : value.end] = b"\1" * (value.end - value.start)
            kept.append(value)
    kept.sort()
    return kept


def _marked(text: str, pattern: re.Pattern[str]) -> bytearray:
    marks = bytearray(len(text))
    for match in pattern.finditer(text):
        marks[match.start() : match.end()] = b"\1" * len(match[0])
    return marks


def find_field(name: str, text: str) -> Found | None:
    """The whole of a field's value, where the field's name tells what it is (`password`, `phone_number`)."""
    snake = _snake_case(name) if len(name) <= _LONGEST_KEY else ""
    if not snake or PLACEHOLDER.search(text):
        return None
    secret = _secret_of_key(snake)
    if secret is not None and secrets.is_secret_value(secret, text):
        return Found(0, len(text), secret, text)
    number = personal.number_of_key(snake, text)
    return Found(0, len(text), number, digits_of(text)) if number is not None else None


@lru_cache(maxsize=8192)
def _snake_case(name: str) -> str:
    return _NOT_SNAKE.sub("_", _HUMP.sub("_", name)).lower().strip("_")


_secret_of_key = lru_cache(maxsize=8192)(secrets.secret_of_key)
