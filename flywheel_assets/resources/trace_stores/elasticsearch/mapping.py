"""Mapping: from a document as a team writes it to a line of the log schema.

What belongs here: names and places of fields, and JSON that was stored as text. What does not: whether the result is a valid
record: that is `core.records`' to say, with its reasons, so a document that does not fit ends in the quarantine of `records`
under its `_id`, never in an exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flywheel_assets.core.records.parse import MAX_ID_LENGTH
from flywheel_assets.core.rows import Json
from flywheel_assets.settings.elasticsearch import ENVELOPE_FIELDS

_KEYWORD = ".keyword"
_OBJECTS = ("request", "response", "feedback")
# Numbers in a date field are milliseconds in Elasticsearch, unless a mapping says otherwise: then they are small.
_FIRST_MILLISECONDS = 1e11
# No time of any calendar has more digits; what has is left as it is, for the rules of a record to refuse.
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Where the fields of the log schema are found in a document.

    `paths` maps a field (or a place inside `request`, `response`, `feedback`) to a dotted path; fields that it does not name
    are read under their own names. `client_id` stands in where a document names no client.
    """

    paths: Mapping[str, str]
    client_id: str
    default_workload: str | None = None

    @property
    def workload_field(self) -> str:
        """The field that tells the workloads apart."""
        return self.path("workload_id")

    def path(self, name: str) -> str:
        """Where a field of the log schema lies."""
        return self.paths.get(name, name)

    def source(self) -> list[str]:
        """The parts of a document that are read."""
        roots = {self.path(name) for name in ENVELOPE_FIELDS} | set(self.paths.values())
        return sorted(roots | {_stem(path) for path in roots})

    def line(self, document_id: str, document: Json, order: int) -> tuple[str, bytes]:
        """The record id and the log line of a document. Never raises, whatever the document holds."""
        content: Json = {}
        for name in ENVELOPE_FIELDS:
            value = _at(document, self.path(name))
            if value is not None:
                content[name] = _unpacked(value) if name in _OBJECTS else value
        for name, path in self.paths.items():
            first, _, inside = name.partition(".")
            value = _at(document, path) if inside else None
            if value is not None:
                _put(content, [first, *inside.split(".")], _unpacked(value))
        if self.default_workload is not None:
            content.setdefault("workload_id", self.default_workload)
        content.setdefault("client_id", self.client_id)
        content["timestamp"] = _seconds(content.get("timestamp", order))
        given = content.get("id")
        record_id = str(given) if isinstance(given, str | int) and 0 < len(str(given)) <= MAX_ID_LENGTH else document_id
        content["id"] = record_id
        return record_id, _dumped(content, record_id)


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path; keys may hold dots themselves. A sub-field `.keyword` is the field it indexes."""
    found = _walk(document, path.split("."))
    return _walk(document, _stem(path).split(".")) if found is None and path.endswith(_KEYWORD) else found


def _walk(value: Any, parts: Sequence[str]) -> Any:
    if not parts:
        return value
    if not isinstance(value, dict):
        return None
    for taken in range(1, len(parts) + 1):
        key = ".".join(parts[:taken])
        if key in value and (found := _walk(value[key], parts[taken:])) is not None:
            return found
    return None


def _stem(path: str) -> str:
    return path.removesuffix(_KEYWORD)


def _put(content: Json, keys: Sequence[str], value: Any) -> None:
    place = content
    for key in keys[:-1]:
        inner = place.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        place = inner
    place[keys[-1]] = value


def _unpacked(value: Any) -> Any:
    """JSON stored as text, read; text that is none stays text, for the rules of a record to refuse (or to take)."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _seconds(value: Any) -> Any:
    """Milliseconds, also as text, in seconds; anything else as it is."""
    if isinstance(value, str) and len(value) <= _MOST_DIGITS and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value / 1000 if _FIRST_MILLISECONDS <= value < 10**_MOST_DIGITS else value


def _dumped(content: Json, record_id: str) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:
        # Deeper than orjson writes, or a number beyond 64 bits: the rules of a record say which.
        try:
            return json.dumps(content).encode()
        except (RecursionError, ValueError):
            return orjson.dumps({"id": record_id, "request": "too deeply nested to be read"})
