"""Masking: what a person may be shown of rows, whatever policy those rows were cleaned with.

What belongs here: copies of JSON values and texts in which no secret and no personal data is left, names of fields included.
What does not: cleaning records themselves (`scrub`), which obeys `cleaning.scrub` and its allow-list. A page that many
people see, and that is kept for long, obeys neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flywheel_assets.core.cleaning.json_text import is_json_text, rewrite_values
from flywheel_assets.core.cleaning.placeholders import Placeholders
from flywheel_assets.core.cleaning.policy import Entity

# JSON in JSON in JSON: further down, text is masked as text.
_JSON_DEPTH = 4
_EVERYTHING = frozenset(Entity)

Rewrite = Callable[[str, str | None], str]


def masked(value: Any) -> Any:
    """A copy of a JSON value with a placeholder in place of everything that cleaning knows how to find.

    The same value has the same placeholder throughout. JSON inside texts (arguments of tool calls) is masked value by value.
    """
    placeholders = Placeholders(_EVERYTHING, None, json.dumps(value).encode())
    shown = _rewritten(value, None, lambda text, field: _masked_text(text, field, placeholders, _JSON_DEPTH))
    if (repeated := placeholders.repeated()) is not None:
        shown = _rewritten(shown, None, lambda text, _: placeholders.replace_repeated(text, repeated))
    return shown


def masked_text(text: str) -> str:
    """`masked` for a text that is no JSON, such as a report."""
    masked_copy: str = masked(text)
    return masked_copy


def _masked_text(text: str, field: str | None, placeholders: Placeholders, depth: int) -> str:
    if depth and is_json_text(text):
        return rewrite_values(text, lambda inner, name: _masked_text(inner, name, placeholders, depth - 1))
    return placeholders.scrub(text, field)


def _rewritten(value: Any, field: str | None, rewrite: Rewrite) -> Any:
    if isinstance(value, str):
        return rewrite(value, field)
    if isinstance(value, dict):
        return {rewrite(name, None): _rewritten(inner, name, rewrite) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rewritten(inner, field, rewrite) for inner in value]
    return value
