"""BFCL: the AST match of the Berkeley Function Calling Leaderboard, where several answers may be right.

Source: the rules of PyPI `bfcl-eval` (2026.3.23, Python categories), re-implemented. A row's `accepted` lists the expected
calls, each as `{function: {parameter: [accepted values]}}`; `""` among the values makes the parameter optional. Without it,
the reference's own calls are the single accepted answer.

Deliberately different from the original: parallel calls are matched by a true assignment instead of greedily (so the order
of the calls never matters), text is compared in the same way at any depth, an integer passes for a float inside a list too,
and `true` is never 1. `make bench BENCH=bfcl_parity_differences` runs both; docs/metrics.md lists what differs.
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

    A call fits when its name is the one offered, every required parameter is there, none is unexpected (neither to the
    accepted answer nor to the tool), and each value has the declared type and is among the accepted ones: strings without
    ` ,./-_*^`, lower case and with one kind of quotes; an integer passes for a float, not the other way round; an empty list
    counts as left out. None where the reference calls nothing.
    """
    if not row.reference.calls_tools:
        return None
    expected = _accepted_calls(row)
    if expected is None or len(expected) != len(answer.tool_calls):
        return 0.0
    schemas = _parameter_schemas(row.request)
    # A logged call is right whatever its tool declares.
    declared_only = bool(row.accepted)
    fits = [
        [i for i, call in enumerate(answer.tool_calls) if _call_fits(call, name, accepted, schemas, declared_only)]
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


def _call_fits(call: ToolCall, name: str, accepted: Accepted, schemas: Mapping[str, Schema], declared_only: bool) -> bool:
    if not _is_called(call.name, name, schemas):
        return False
    arguments = parse_arguments(call.arguments)
    if arguments is None:
        return False
    schema = schemas.get(call.name, _NO_SCHEMA)
    required = schema.get("required")
    if isinstance(required, list) and not all(key in arguments for key in required):
        return False
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = _NO_SCHEMA
    elif declared_only and not schema.get("additionalProperties") and not arguments.keys() <= properties.keys():
        return False
    return _has_right_keys(arguments, accepted) and all(
        _argument_fits(value, accepted[key], _schema(properties.get(key))) for key, value in arguments.items()
    )


def _is_called(called: str, name: str, schemas: Mapping[str, Schema]) -> bool:
    """Whether a function is called by the name under which the request offers it.

    OpenAI's API forbids dots in function names, so a dotted name is offered, and answered, with underscores.
    """
    if called == name:
        return name in schemas or name.replace(".", "_") not in schemas
    return called == name.replace(".", "_") and name not in schemas


def _has_right_keys(value: Mapping[str, Any], accepted: Accepted) -> bool:
    """Whether none is unexpected, and none is missing that may not be left out."""
    return value.keys() <= accepted.keys() and all(
        key in value or _is_optional(choices) for key, choices in accepted.items()
    )


def _is_optional(choices: Sequence[Any]) -> bool:
    return any(type(choice) is str and choice == _OPTIONAL for choice in choices)


def _argument_fits(value: Any, choices: Sequence[Any], schema: Schema) -> bool:
    """Whether a parameter's value has the right type and is among the accepted ones.

    Where the first accepted value is not of the declared type, the leaderboard takes it for the name of a variable: a value
    of its type passes too, and text is then compared as it is written.
    """
    declared, kind = _declared_types(schema), type(value)
    if declared is not None and (kind is str or kind not in declared):
        accepted = _type_of_first(choices)
        if kind not in declared and kind is not accepted:
            return False
        if kind is str and accepted is not None and accepted not in declared:
            return value in choices
    for choice in choices:
        if _equals(value, choice, schema):
            return True
    return value == [] and declared is not None and list in declared and _is_optional(choices)


def _type_of_first(choices: Sequence[Any]) -> type | None:
    """The type of the first accepted value; None where only absence is accepted."""
    for choice in choices:
        if type(choice) is not str or choice != _OPTIONAL:
            return _type(choice)
    return None


def _equals(value: Any, choice: Any, schema: Schema) -> bool:
    if type(value) is str:
        return isinstance(choice, str) and _standard(value) == _standard(choice)
    if type(value) is bool or type(choice) is bool:
        return value is choice
    if type(value) is dict:
        return type(choice) is dict and _object_fits(value, choice)
    if type(value) is list:
        items = _schema(schema.get("items"))
        return (
            type(choice) is list
            and len(value) == len(choice)
            and all(_item_fits(item, wanted, items) for item, wanted in zip(value, choice, strict=True))
        )
    return bool(value == choice)


def _item_fits(item: Any, wanted: Any, schema: Schema) -> bool:
    """One item of a list. What is inside an item is compared by value: declared types count no deeper."""
    declared = _declared_types(schema)
    right_type = declared is None or type(item) in declared or type(item) is _type(wanted)
    return right_type and _equals(item, wanted, _NO_SCHEMA)


def _object_fits(value: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    """Inside an object every value is again a list of accepted ones; declared types do not count there."""
    choices = {key: _as_choices(choice) for key, choice in accepted.items()}
    return _has_right_keys(value, choices) and all(
        any(_equals(item, choice, _NO_SCHEMA) for choice in choices[key]) for key, item in value.items()
    )


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


def _declared_types(schema: Schema) -> tuple[type, ...] | None:
    """The types a value may have; None where the schema does not say, or says more than is known here."""
    declared = schema.get("type")
    if type(declared) is str:
        return _TYPES.get(declared)
    if not isinstance(declared, list) or not all(isinstance(name, str) and name in _TYPES for name in declared):
        return None
    return tuple(kind for name in declared for kind in _TYPES[name])


def _type(value: Any) -> type:
    return str if isinstance(value, str) else type(value)


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
