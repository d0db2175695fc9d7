"""JSON inside text: tools, calls and answers that data sets keep as strings.

What belongs here: reading such text, and writing values as text. What does not: what the values mean (`calls`).
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

import orjson

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.records import RejectReason

# Python's parser was not written for strangers' text: only what can be a short list or dictionary is shown to it.
_LITERAL_CHARACTERS = 100_000


class NotJson(ValueError):
    """Text that holds no value; the message says what is wrong with it."""


def read_value(text: str) -> Any:
    """The value in a text of JSON, or of Python literals: public data sets were often written by `print(dictionary)`.

    Raises NotJson.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        fault = f"{error.msg} at character {error.pos}"
    text = text.strip()
    if not text.startswith(("{", "[", "(")) or len(text) > _LITERAL_CHARACTERS:
        raise NotJson(fault)
    try:
        with warnings.catch_warnings():
            # A stray backslash is a warning to Python, and none of the reader's business.
            warnings.simplefilter("ignore")
            # To JSON and back: tuples become lists, and what JSON has no form for is an error.
            return orjson.loads(orjson.dumps(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise NotJson(fault) from None


def read_values(text: str) -> list[Any]:
    """The values in a text: one, a list of them, or one a line. Raises NotJson."""
    try:
        value = read_value(text)
    except NotJson:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [read_value(line) for line in lines]
    return value if type(value) is list else [value]


def as_text(value: Any) -> str:
    """A value as it stands in a message: text as it is, everything else as JSON in the order it was written."""
    if type(value) is str:
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise FormatError(RejectReason.TOO_DEEP, f"nested too deeply to be written as text ({error})") from None
