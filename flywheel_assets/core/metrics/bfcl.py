"""BFCL: the AST match of the Berkeley Function Calling Leaderboard, where several answers may be right.

Source: the rules of PyPI `bfcl-eval` (2026.3.23, Python categories), re-implemented. A row's `accepted` lists the expected
calls, each as `{function: {parameter: [accepted values]}}`; `""` among the values makes the parameter optional. Without it,
the reference's own calls are the single accepted answer.

Deliberately different from the original: parallel calls are matched by a true assignment instead of greedily (so the order
of the calls never matters), nested objects and lists are compared at any depth, and a call whose arguments are malformed is
wrong instead of being left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.core.metrics.arguments import parse_arguments
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall

# {parameter: accepted values}
Accepted = Mapping[str, Sequence[Any]]
Schema = Mapping[str, Any]

_IGNORED = re.compile(r"[ ,./\-_*^]")
_OPTIONAL = ""
_NO_SCHEMA: Schema = {}


def ast_match(row: EvalRow, answer: Answer) -> float | None:
    """1 if the calls can be paired one to one with the accepted ones.

    A call fits when its name is the same, every required parameter is there, none is unexpected, and each value has the
    declared type and is among the accepted ones: strings without ` ,./-_*^`, lower case and with one kind of quotes; an
    integer passes for a float, not the other way round. None where the reference calls nothing.
    """
    if not row.reference.calls_tools:
        return None
    expected = _accepted_calls(row)
    if expected is None or len(expected) != len(answer.tool_calls):
        return 0.0
    schemas = _parameter_schemas(row.request)
    fits = [
        [i for i, call in enumerate(answer.tool_calls) if _call_fits(call, name, accepted, schemas)]
        for name, accepted in expected
    ]
    return float(_can_assign(fits))


def _accepted_calls(row: EvalRow) -> list[tuple[str, Accepted]] | None:
    """The expected calls; None where the reference is malformed, which nothing can match."""
    if row.accepted:
        return [next(iter(call.items())) for call in row.accepted]
    calls: list[tuple[str, Accepted]] = []
    for call in row.reference.tool_calls:
        arguments = parse_arguments(call.arguments)
        if arguments is None:
            return None
        calls.append((call.name, {key: [_as_accepted(value)] for key, value in arguments.items()}))
    return calls


def _as_accepted(value: Any) -> Any:
    """A plain value in the leaderboard's notation, where the values inside an object are lists of accepted ones."""
    if type(value) is dict:
        return {key: [_as_accepted(item)] for key, item in value.items()}
    if type(value) is list:
        return [_as_accepted(item) for item in value]
    return _Exactly("") if value == "" else value


class _Exactly(str):
    """A reference's own empty string, which must not be read as the mark of an optional parameter."""

    __slots__ = ()


def _parameter_schemas(request: Mapping[str, Any]) -> dict[str, Schema]:
    """{function: JSON Schema of its parameters} of the tools a request offers."""
    schemas: dict[str, Schema] = {}
    for tool in request.get("tools") or ():
        function = tool.get("function") or {}
        schemas[function.get("name", "")] = _schema(function.get("parameters"))
    return schemas


def _schema(value: Any) -> Schema:
    """A JSON Schema, or one that says nothing where the request holds something else (`true`, null)."""
    return value if isinstance(value, dict) else _NO_SCHEMA


def _call_fits(call: ToolCall, name: str, accepted: Accepted, schemas: Mapping[str, Schema]) -> bool:
    # OpenAI's API forbids dots in function names, so a dotted name is asked for, and answered, with underscores.
    if call.name not in (name, name.replace(".", "_")):
        return False
    arguments = parse_arguments(call.arguments)
    if arguments is None:
        return False
    schema = schemas.get(call.name, _NO_SCHEMA)
    required = schema.get("required")
    if isinstance(required, list) and not all(key in arguments for key in required):
        return False
    return _object_fits(arguments, accepted, schema)


def _object_fits(value: Mapping[str, Any], accepted: Accepted, schema: Schema) -> bool:
    if not value.keys() <= accepted.keys():
        return False
    properties = _schema(schema.get("properties"))
    for key, choices in accepted.items():
        if key not in value:
            if not _is_optional(choices):
                return False
        elif not _value_fits(value[key], choices, _schema(properties.get(key))):
            return False
    return True


def _is_optional(choices: Sequence[Any]) -> bool:
    return any(choice == _OPTIONAL and type(choice) is str for choice in choices)


def _value_fits(value: Any, choices: Sequence[Any], schema: Schema) -> bool:
    """Whether a value has the declared type and is among the accepted ones.

    A value of another type still counts when the accepted answers are of that type: there the leaderboard accepts the name
    of a variable instead of a value.
    """
    if not _has_declared_type(value, schema) and not any(_same_type(value, choice) for choice in choices if choice != ""):
        return False
    return any(_equals(value, choice, schema) for choice in choices)


def _equals(value: Any, choice: Any, schema: Schema) -> bool:
    if type(value) is str:
        return isinstance(choice, str) and _standard(value) == _standard(choice)
    if type(value) is bool or type(choice) is bool:
        return value is choice
    if type(value) is dict:
        # Inside an object every value is again a list of accepted ones.
        return type(choice) is dict and _object_fits(value, {k: _as_choices(v) for k, v in choice.items()}, schema)
    if type(value) is list:
        items = _schema(schema.get("items"))
        return (
            type(choice) is list
            and len(value) == len(choice)
            and all(_value_fits(item, [wanted], items) for item, wanted in zip(value, choice, strict=True))
        )
    return bool(value == choice)


def _as_choices(value: Any) -> list[Any]:
    return value if type(value) is list else [value]


def _standard(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


# JSON Schema and the leaderboard's own names for types; a type that is missing here is not checked.
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "float": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "object": (dict,),
    "dict": (dict,),
    "null": (type(None),),
}


def _has_declared_type(value: Any, schema: Schema) -> bool:
    declared = schema.get("type")
    if type(declared) is str:
        types = _TYPES.get(declared)
        return types is None or type(value) in types
    names = declared if isinstance(declared, list) else [declared]
    known = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
    return not known or len(known) < len(names) or any(type(value) in types for types in known)


def _same_type(value: Any, choice: Any) -> bool:
    return type(value) is type(choice) or (type(value) is str and isinstance(choice, str))


def _can_assign(fits: Sequence[Sequence[int]]) -> bool:
    """Whether every expected call gets a call of its own (augmenting paths; calls are few)."""
    owner: dict[int, int] = {}

    def assign(expected: int, tried: set[int]) -> bool:
        for call in fits[expected]:
            if call in tried:
                continue
            tried.add(call)
            if call not in owner or assign(owner[call], tried):
                owner[call] = expected
                return True
        return False

    return all(assign(expected, set()) for expected in range(len(fits)))
