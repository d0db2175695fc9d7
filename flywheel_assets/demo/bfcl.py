"""The Berkeley Function Calling Leaderboard: from its form of a question to ours.

What belongs here: reading the questions out of the wheel, the mapping to OpenAI tools (JSON Schema types, function names)
and the reference answer, which is right by construction because it is taken from the accepted answers. What does not:
which questions the demo uses and what a log record of one looks like (`records`).

A question whose accepted answer contradicts its own tool schema is left out: no reference made from it would be right.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_assets.core.rows import Json, ToolCall
from flywheel_assets.demo.fetch import DemoError

# One user turn and one expected call; the irrelevance categories offer functions that cannot serve the request.
CALL_CATEGORIES = ("simple_python", "multiple", "live_simple", "live_multiple")
NO_CALL_CATEGORIES = ("irrelevance", "live_irrelevance")

_DATA = "bfcl_eval/data"
_LEFT_OUT = ""  # the leaderboard's mark for "this parameter may be absent"
_JSON_SCHEMA_TYPE = {"dict": "object", "float": "number", "tuple": "array"}
_ANY = "any"
_NOT_IN_A_TOOL_NAME = re.compile(r"[^a-zA-Z0-9_-]")
MAX_TOOL_NAME = 64


class _UnusableError(Exception):
    """A question from which no right reference can be made."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the leaderboard in OpenAI form.

    `calls` is the reference, empty where no call is right. `accepted` holds every accepted answer in the leaderboard's
    form, `({function: {parameter: [values]}},)`, with the names the tools have here; None where no call is right.
    """

    id: str
    category: str
    text: str
    tools: tuple[Json, ...]
    calls: tuple[ToolCall, ...]
    accepted: tuple[Json, ...] | None

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the functions offered, in their order."""
        return tuple(tool["function"]["name"] for tool in self.tools)


def read_questions(wheel: Path, category: str) -> Iterator[Question]:
    """The usable questions of a category, in the leaderboard's order.

    Left out: several turns or a system prompt of their own, no function, clashing or overlong function names, and accepted
    answers that contradict the schema. Raises DemoError where the wheel does not hold the category or is not a wheel.
    """
    rows = _read(wheel, f"{_DATA}/BFCL_v4_{category}.json")
    answers: dict[str, list[Json]] = {}
    if category in CALL_CATEGORIES:
        found = _read(wheel, f"{_DATA}/possible_answer/BFCL_v4_{category}.json")
        answers = {row["id"]: row["ground_truth"] for row in found}
    for row in rows:
        try:
            yield _question(row, category, answers.get(row["id"]))
        except _UnusableError:
            continue


def tool_name(function: str) -> str:
    """A function's name as an OpenAI tool may be called (`^[a-zA-Z0-9_-]{1,64}$`): `math.factorial` is `math_factorial`."""
    return _NOT_IN_A_TOOL_NAME.sub("_", function)


def json_schema(parameters: Mapping[str, Any]) -> Json:
    """A parameter description of the leaderboard as JSON Schema: Python type names mapped at every depth, `any` dropped."""
    schema: Json = {}
    for key, value in parameters.items():
        if key == "type":
            if value != _ANY:
                schema["type"] = _JSON_SCHEMA_TYPE.get(value, value)
        elif key == "properties":
            schema["properties"] = {name: json_schema(inner) for name, inner in value.items()}
        elif key == "items" and isinstance(value, dict):
            schema["items"] = json_schema(value)
        elif key == "required" and not isinstance(value, list):
            continue  # a flag beside the parameter; JSON Schema says it in the object's list
        elif key != "optional":
            schema[key] = value
    return schema


def reference_arguments(accepted: Mapping[str, list[Any]], schema: Mapping[str, Any]) -> Json:
    """The arguments of the reference call: of every parameter the first accepted value its schema allows.

    A parameter whose first such value is "absent" is left out. Raises _UnusableError where nothing fits, or a parameter
    that is required has no value.
    """
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if missing := [name for name in required if name not in accepted]:
        raise _UnusableError(f"no accepted value for {missing}")
    arguments: Json = {}
    for name, values in accepted.items():
        if name not in properties:
            raise _UnusableError(f"unknown parameter {name}")
        for value in values:
            if value == _LEFT_OUT and name not in required:
                break
            concrete = _concrete(value)
            if _fits(concrete, properties[name]) and (concrete != _LEFT_OUT or len(values) == 1):
                arguments[name] = concrete
                break
        else:
            raise _UnusableError(f"no accepted value of {name} fits its schema")
    return arguments


def _question(row: Json, category: str, ground_truth: list[Json] | None) -> Question:
    turns = row["question"]
    if len(turns) != 1 or [message["role"] for message in turns[0]] != ["user"] or not row["function"]:
        raise _UnusableError("not a single request with functions")
    tools = tuple(_tool(function) for function in row["function"])
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    if len(schemas) != len(tools) or any(len(name) > MAX_TOOL_NAME for name in schemas):
        raise _UnusableError("function names clash or are too long")
    calls: list[ToolCall] = []
    accepted: list[Json] = []
    for answer in ground_truth or ():
        for function, values in answer.items():
            name = tool_name(function)
            if name not in schemas:
                raise _UnusableError(f"{function} is not offered")
            arguments = reference_arguments(values, schemas[name])
            calls.append(ToolCall(name, json.dumps(arguments, ensure_ascii=False)))
            accepted.append({name: values})
    if category in CALL_CATEGORIES and not calls:
        raise _UnusableError("no accepted answer")
    text = turns[0][0]["content"].strip()
    return Question(row["id"], category, text, tools, tuple(calls), tuple(accepted) if calls else None)


def _tool(function: Json) -> Json:
    parameters = json_schema(function["parameters"])
    return {
        "type": "function",
        "function": {"name": tool_name(function["name"]), "description": function["description"], "parameters": parameters},
    }


def _concrete(value: Any) -> Any:
    """One accepted value as an argument. In a dictionary the leaderboard lists the accepted values of every key again."""
    if isinstance(value, list):
        return [_concrete(element) if isinstance(element, dict) else element for element in value]
    if not isinstance(value, dict):
        return value
    return {key: inner[0] for key, inner in value.items() if inner and inner[0] != _LEFT_OUT}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of its schema's type, and in its enumeration; deeper rules of JSON Schema are not looked at."""
    if "enum" in schema and value not in schema["enum"]:
        return False
    match schema.get("type"):
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list) and all(_fits(element, schema.get("items", {})) for element in value)
        case "object":
            inner = schema.get("properties", {})
            return isinstance(value, dict) and all(_fits(v, inner.get(key, {})) for key, v in value.items())
    return True


def _read(wheel: Path, member: str) -> list[Json]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            lines = archive.read(member).decode("utf-8").split("\n")
    except KeyError:
        raise DemoError(f"{wheel} holds no {member}. Delete it and run again.") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise DemoError(f"{wheel} cannot be read ({error}). Delete it and run again.") from None
    return [json.loads(line) for line in lines if line.strip()]
