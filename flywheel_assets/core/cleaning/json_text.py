"""JSON inside text: the arguments of a tool call, a tool's result; scrubbed value by value, and otherwise left as written.

What belongs here: recognising such text, and rewriting the string and number literals of its values. What does not: what
is replaced (`placeholders`). The text is never dumped anew: spacing, order, and numbers no float can hold stay as the
model wrote them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import orjson

Rewrite = Callable[[str, str | None], str]

# A string with what makes it a key, or a whole number long enough to be somebody's.
_LITERAL = re.compile(r'("(?:[^"\\]++|\\.)*+")(\s*+:)?|(?<![\w.+-])\d{7,19}(?![\w.])', re.DOTALL)
_OPENS = ("{", "[")
_CLOSES = ("}", "]")


def is_json_text(text: str) -> bool:
    """Whether a text is a JSON object or list, as a whole."""
    # The ends first: parsing every text to find that it is none would cost more than all the rest.
    if not text.lstrip()[:1].startswith(_OPENS) or not text.rstrip()[-1:].endswith(_CLOSES):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def rewrite_values(text: str, rewrite: Rewrite) -> str:
    """JSON text with each value that is text (or a long whole number) passed through `rewrite(value, its key)`.

    Keys stay. A value of a list has the key of the list. What `rewrite` does not change stays byte for byte; a changed
    number becomes a string.
    """
    parts: list[str] = []
    key: str | None = None
    keys: list[str | None] = []
    at = checked = 0
    for match in _LITERAL.finditer(text):
        key = _key_here(text[checked : match.start()], key, keys)
        checked = match.end()
        literal = match[1]
        if match[2] is not None:
            key = str(orjson.loads(literal))
            continue
        value = match[0] if literal is None else orjson.loads(literal)
        if (new := rewrite(value, key)) != value:
            written = json.dumps(new, ensure_ascii=literal is not None and literal.isascii())
            parts += [text[at : match.start()], written]
            at = match.start() + len(match[1] or match[0])
    return "".join(parts) + text[at:] if parts else text


def _key_here(between: str, key: str | None, keys: list[str | None]) -> str | None:
    """The key in force after the punctuation between two literals: a list keeps its own, an object's end drops its."""
    for character in between:
        if character == "[":
            keys.append(key)
        elif character == "{":
            keys.append(None)
        elif character in "]}" and keys:
            keys.pop()
            key = None
        elif character == ",":
            key = keys[-1] if keys else None
    return key
