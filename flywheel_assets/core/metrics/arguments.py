"""Arguments: what models write as JSON (tool-call arguments, structured answers), in forms that can be compared and counted.

What belongs here: parsing and equality. What counts as a match is each metric's business.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import orjson

Path = tuple[str | int, ...]

# Several metrics read the same arguments; a few thousand texts are the calls of one report.
_CACHED_TEXTS = 8192
# A model that loops can write hundreds of brackets; no tool needs that, and recursion must not end the evaluation.
_DEEPEST = 64


@lru_cache(_CACHED_TEXTS)
def parse_arguments(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`, shared between callers: read it, never change it.

    None for anything else, which is what malformed means here: broken JSON, an empty text, a list, a string, NaN, nesting
    deeper than 64.
    """
    value = parse_document(text)
    return value if type(value) is dict else None


def parse_document(text: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or list that `text` is from end to end, blanks around it aside.

    None for anything else: a bare number or word, JSON inside a sentence or a code fence, NaN, nesting deeper than 64.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict and type(value) is not list:
        return None
    if text.count("{") + text.count("[") > _DEEPEST and _depth(value) > _DEEPEST:
        return None
    return value


def _depth(value: Any) -> int:
    """How deep objects and lists are nested, without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if type(item) is dict or type(item) is list]:
        depth += 1
        level = [child for item in level for child in (item.values() if type(item) is dict else item)]
    return depth


def canonical(value: Any) -> Hashable:
    """A hashable form in which two JSON values are equal exactly when they mean the same.

    Objects compare without order, lists with it, `2` equals `2.0`, and `true` does not equal `1`.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float:
        # Python compares int with float by value, and neither with str.
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return ("bool", value)
    if kind is dict:
        return ("object", frozenset([(key, canonical(item)) for key, item in value.items()]))
    if kind is list:
        return ("list", tuple([canonical(item) for item in value]))
    return None


@lru_cache(_CACHED_TEXTS)
def canonical_arguments(text: str) -> Hashable | None:
    """`canonical` of the object in `text`; None when it is malformed."""
    value = parse_arguments(text)
    return None if value is None else canonical(value)


@lru_cache(_CACHED_TEXTS)
def flat_arguments(text: str) -> tuple[tuple[Path, Hashable], ...] | None:
    """The leaves of the object in `text` as (path, canonical value); None when it is malformed.

    A list index is part of the path; an empty object or list is a leaf, so `f({})` has one.
    """
    value = parse_arguments(text)
    return None if value is None else flat(value)


def flat(value: Any) -> tuple[tuple[Path, Hashable], ...]:
    """The leaves of a JSON value, as `flat_arguments` gives them. Every path occurs once."""
    leaves: list[tuple[Path, Hashable]] = []
    _collect(leaves, (), value)
    return tuple(leaves)


def _collect(leaves: list[tuple[Path, Hashable]], path: Path, value: Any) -> None:
    kind = type(value)
    if kind is dict and value:
        for key, item in value.items():
            _collect(leaves, (*path, key), item)
    elif kind is list and value:
        for index, item in enumerate(value):
            _collect(leaves, (*path, index), item)
    else:
        leaves.append((path, canonical(value)))
