"""Parameter types in words, as xLAM writes them (`List[str], optional`), as JSON Schema.

What belongs here: the words. What does not: the tools they describe (`xlam`).
"""

from __future__ import annotations

import re

from flywheel_assets.core.rows import Json

_PLAIN = {
    **dict.fromkeys(("str", "string", "text", "char", "character"), "string"),
    **dict.fromkeys(("int", "integer", "long"), "integer"),
    **dict.fromkeys(("float", "number", "double", "decimal", "numeric"), "number"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    **dict.fromkeys(("list", "array", "sequence", "iterable", "tuple", "set", "frozenset"), "array"),
    **dict.fromkeys(("dict", "object", "mapping", "map"), "object"),
    **dict.fromkeys(("none", "null", "nonetype"), "null"),
}
_WITH_PART = re.compile(r"([A-Za-z_.]+)\s*\[(.*)\]", re.DOTALL)
# Types are short; what is longer is prose, and nesting stays within bounds.
_LONGEST = 200


def json_type(words: str) -> tuple[Json, bool]:
    """The schema a type stands for (`{}`, which allows anything, for an unknown one), and whether it is marked optional."""
    kind, *marks = _parts(words, ",") if len(words) <= _LONGEST else [""]
    schema, may_be_null = _schema(kind)
    return schema, may_be_null or any(mark.lower().startswith(("optional", "default")) for mark in marks)


def _schema(kind: str) -> tuple[Json, bool]:
    choices = _parts(kind, "|")
    if len(choices) > 1:
        return _union(choices)
    if matched := _WITH_PART.fullmatch(kind):
        return _with_parts(matched[1].split(".")[-1].lower(), _parts(matched[2], ","))
    plain = _PLAIN.get(kind.split(".")[-1].lower())
    return ({"type": plain} if plain else {}), False


def _with_parts(outer: str, inner: list[str]) -> tuple[Json, bool]:
    if outer == "optional":
        return _schema(inner[0])[0], True
    if outer == "union":
        return _union(inner)
    kind = _PLAIN.get(outer)
    schema: Json = {"type": kind} if kind else {}
    if kind == "array":
        items = [_schema(part)[0] for part in inner if part != "..."]
        # A tuple's places may differ; a list of anything says less, and nothing wrong.
        if items and items[0] and all(item == items[0] for item in items):
            schema["items"] = items[0]
        if outer in ("set", "frozenset"):
            schema["uniqueItems"] = True
    elif kind == "object" and len(inner) == 2 and (value := _schema(inner[1])[0]):
        schema["additionalProperties"] = value
    return schema, False


def _union(kinds: list[str]) -> tuple[Json, bool]:
    schemas: list[Json] = []
    for kind in kinds:
        schema = _schema(kind)[0]
        if schema not in schemas:
            schemas.append(schema)
    some = [schema for schema in schemas if schema != {"type": "null"}]
    may_be_null = len(some) < len(schemas)
    if not some or {} in some:
        return {}, may_be_null
    if len(some) == 1:
        return some[0], may_be_null
    if all(schema.keys() == {"type"} for schema in some):
        return {"type": [schema["type"] for schema in some]}, may_be_null
    return {"anyOf": some}, may_be_null


def _parts(words: str, separator: str) -> list[str]:
    """What stands between separators that are in no bracket."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(words):
        depth += (character in "[(") - (character in "])")
        if character == separator and depth == 0:
            parts.append(words[start:at].strip())
            start = at + 1
    return [*parts, words[start:].strip()]
