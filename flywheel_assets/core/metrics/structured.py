"""Structured: how an answer that must be JSON is compared with the reference's JSON, and with the schema that was asked for.

An answer counts as JSON only if the whole of it is one object or list; a code fence or a sentence around it makes it text,
as it would for the program that reads it. Values are compared as parsed JSON: int with float by value, keys in any order,
lists in theirs; of a key that occurs twice the last one counts, as in every common parser. Source: definitions of this
project.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import jsonschema_rs

from flywheel_assets.core.metrics.arguments import Path, canonical, flat, parse_document
from flywheel_assets.core.metrics.schemas import validator_of
from flywheel_assets.core.rows import Answer, EvalRow

_FORMATS = ("json_object", "json_schema")
# A few thousand texts are the answers of one report.
_CACHED_TEXTS = 8192


class _Document(NamedTuple):
    """A parsed answer, in the forms the metrics compare."""

    value: dict[str, Any] | list[Any]
    canonical: Hashable
    leaves: frozenset[tuple[Path, Hashable]]


def json_valid(row: EvalRow, answer: Answer) -> float | None:
    """1 if the whole answer is one JSON object or list. A code fence around it counts as wrong.

    None where the reference is no JSON and the request asks for none (no `response_format`).
    """
    if not _is_asked(row.request) and _document(row.reference.content) is None:
        return None
    return float(_document(answer.content) is not None)


def schema_valid(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer is JSON that fits the schema in the request's `response_format`; `format` is not checked.

    None where the request carries no schema, or one that cannot be used: not a JSON Schema, or with references to
    elsewhere (nothing is fetched).
    """
    validator = _validator(row.request)
    if validator is None:
        return None
    document = _document(answer.content)
    return float(document is not None and validator.is_valid(document.value))


def exact_match(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer means the same JSON as the reference: keys in any order, `2` equal to `2.0`, lists in order.

    None where the reference is no JSON object or list.
    """
    expected = _document(row.reference.content)
    if expected is None:
        return None
    said = _document(answer.content)
    return float(said is not None and said.canonical == expected.canonical)


def json_match(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer means the same JSON as the reference, in traffic that is not all JSON.

    None where the reference calls a tool or is no JSON object or list. A mean over words hides a field that is wrong.
    """
    return None if row.reference.calls_tools else exact_match(row, answer)


def field_precision(row: EvalRow, answer: Answer) -> float | None:
    """The share of the answer's fields that the reference has with the same value; 0 if the answer is no JSON.

    A field is (path, value), with list indices as part of the path; an empty object or list is one field. None where the
    reference is no JSON object or list.
    """
    expected = _document(row.reference.content)
    if expected is None:
        return None
    said = _document(answer.content)
    return 0.0 if said is None else len(expected.leaves & said.leaves) / len(said.leaves)


def field_recall(row: EvalRow, answer: Answer) -> float | None:
    """The share of the reference's fields that the answer has with the same value; fields and null as `field_precision`."""
    expected = _document(row.reference.content)
    if expected is None:
        return None
    said = _document(answer.content)
    return 0.0 if said is None else len(expected.leaves & said.leaves) / len(expected.leaves)


def field_f1(row: EvalRow, answer: Answer) -> float | None:
    """The harmonic mean of `field_precision` and `field_recall` of the row; null as `field_precision`."""
    expected = _document(row.reference.content)
    if expected is None:
        return None
    said = _document(answer.content)
    if said is None:
        return 0.0
    return 2.0 * len(expected.leaves & said.leaves) / (len(expected.leaves) + len(said.leaves))


def _document(text: str | None) -> _Document | None:
    return None if text is None else _parsed(text)


@lru_cache(_CACHED_TEXTS)
def _parsed(text: str) -> _Document | None:
    value = parse_document(text)
    return None if value is None else _Document(value, canonical(value), frozenset(flat(value)))


def _is_asked(request: dict[str, Any]) -> bool:
    asked = request.get("response_format")
    return type(asked) is dict and asked.get("type") in _FORMATS


def _validator(request: dict[str, Any]) -> jsonschema_rs.Validator | None:
    """The checker of the schema a request carries, if it carries a usable one."""
    asked = request.get("response_format")
    if type(asked) is not dict:
        return None
    wrapped = asked.get("json_schema")
    # OpenAI's form, and the one llama.cpp's server and others accept beside it.
    return validator_of(wrapped.get("schema") if type(wrapped) is dict else asked.get("schema"))
