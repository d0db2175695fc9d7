"""Tools and tool calls in the forms data sets have them, as OpenAI has them.

What belongs here: lists of tools and calls, given as values or as JSON text. What does not: calls between tags in text
(`tags`), parameter types in words (`xlam_types`), and whether a tool's schema is right (`core.records`).
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.embedded import NotJson, read_values
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json


def tools_of(value: Any, where: str) -> list[Json]:
    """OpenAI tools from a list of tools or bare functions, one of them, or either as JSON text; empty where there are none.

    Raises FormatError (`malformed_tools`).
    """
    return [_tool(tool, f"{where}[{position}]") for position, tool in enumerate(functions_of(value, where))]


def functions_of(value: Any, where: str) -> list[Json]:
    """The entries of a list of tools, each an object, whatever form it has. Raises FormatError (`malformed_tools`)."""
    listed = _listed(value, where, RejectReason.MALFORMED_TOOLS)
    entries = []
    for position, entry in enumerate(listed):
        # A column of a table holds text, so lists of JSON texts occur.
        if type(entry) is str:
            entries += _listed(entry, f"{where}[{position}]", RejectReason.MALFORMED_TOOLS)
        else:
            entries.append(entry)
    for position, entry in enumerate(entries):
        if type(entry) is not dict:
            raise FormatError(RejectReason.MALFORMED_TOOLS, f"{where}[{position}] must be an object")
    return entries


def calls_of(value: Any, where: str) -> list[Json]:
    """OpenAI tool calls, without ids, from `{name, arguments}` or OpenAI calls: one, a list, or either as JSON text.

    Raises FormatError (`malformed_tool_calls`).
    """
    listed = _listed(value, where, RejectReason.MALFORMED_TOOL_CALLS)
    return [_call(call, f"{where}[{position}]") for position, call in enumerate(listed)]


def _listed(value: Any, where: str, reason: RejectReason) -> list[Any]:
    if value is None:
        return []
    if type(value) is str:
        if not value.strip():
            return []
        try:
            return read_values(value)
        except NotJson as error:
            raise FormatError(reason, f"{where} is text that is not JSON ({error})") from None
    if type(value) is dict:
        return [value]
    if type(value) is not list:
        raise FormatError(reason, f"{where} must be a list, or JSON text of one")
    return value


def _tool(tool: Json, where: str) -> Json:
    if type(tool.get("function")) is dict:
        return {**tool, "type": "function"} if tool.get("type") is None else tool
    if type(tool.get("name")) is not str:
        raise FormatError(RejectReason.MALFORMED_TOOLS, f"{where} must be a tool with a function, or a function with a name")
    return {"type": "function", "function": {key: held for key, held in tool.items() if key != "type"}}


def _call(call: Any, where: str) -> Json:
    function = call.get("function", call) if type(call) is dict else None
    if type(function) is not dict or type(function.get("name")) is not str or not function["name"]:
        raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"{where} must be an object with a name and arguments")
    arguments = function.get("arguments")
    if type(arguments) is not dict and type(arguments) is not str:
        raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"{where}.arguments must be an object, or JSON text of one")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
