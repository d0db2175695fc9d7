"""xLAM function calling: `query`, `tools` and `answers`, the last two lists or JSON text of lists.

What belongs here: this format and its tools. What does not: parameter types in words (`xlam_types`).
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import calls_of, functions_of, tools_of
from flywheel_assets.core.formats.conversation import Conversation, answered, source_id
from flywheel_assets.core.formats.xlam_types import json_type
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

_SAID_OTHERWISE = ("type", "optional", "required")


class XlamFormat:
    """One query, the tools offered, and the calls that answer it; no calls mean that none is right."""

    name = "xlam"
    title = "xLAM function calling: query, tools, answers"

    def recognises(self, value: Json) -> bool:
        """The three names, with values of their kinds."""
        return type(value.get("query")) is str and all(type(value.get(name)) in (str, list) for name in ("tools", "answers"))

    def records(self, value: Json) -> list[Json]:
        """The query asked, the calls answered."""
        query = value.get("query")
        if type(query) is not str or not query.strip():
            raise FormatError(RejectReason.MISSING_FIELD, "query is missing, empty, or no text")
        if value.get("answers") is None:
            raise FormatError(RejectReason.MISSING_FIELD, "answers is missing (an empty list where no call is right)")
        tools = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(functions_of(value.get("tools"), "tools"))]
        conversation = Conversation()
        system = value.get("system")
        if type(system) is str and system.strip():
            conversation.say("system", system)
        conversation.say("user", query)
        conversation.answer(None, calls_of(value["answers"], "answers"))
        *asked, answer = conversation.messages
        return [answered(asked, answer, tools, source_id=source_id(value))]


def _tool(tool: Json, where: str) -> Json:
    """A tool, its parameters as JSON Schema; one that has a schema already is left as it is."""
    parameters = tool.get("parameters")
    if type(parameters) is dict and "function" not in tool and not _is_schema(parameters):
        tool = {**tool, "parameters": _schema(parameters, f"{where}.parameters")}
    return tools_of([tool], where)[0]


def _is_schema(parameters: Json) -> bool:
    # A parameter may be called "type"; it is described by an object, where a schema has a word.
    return type(parameters.get("type")) is str and type(parameters.get("properties", {})) is dict


def _schema(parameters: Json, where: str) -> Json:
    properties: Json = {}
    required = []
    for name, described in parameters.items():
        properties[name], is_required = _property(described, f"{where}.{name}")
        if is_required:
            required.append(name)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _property(described: Any, where: str) -> tuple[Json, bool]:
    """One parameter, and whether it must be given: neither marked optional nor with a default."""
    if type(described) is str:
        described = {"type": described}
    if type(described) is not dict:
        raise FormatError(RejectReason.MALFORMED_TOOLS, f"{where} must describe a parameter: an object with a type")
    kind = described.get("type")
    schema, optional = json_type(kind) if type(kind) is str else ({} if kind is None else {"type": kind}, False)
    schema |= {key: held for key, held in described.items() if key not in _SAID_OTHERWISE}
    if type(described.get("required")) is bool:
        return schema, described["required"]
    return schema, not (optional or described.get("optional") is True or "default" in described)
