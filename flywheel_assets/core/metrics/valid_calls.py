"""Valid calls: whether what a model calls could be executed at all, right or wrong.

A call is valid if the request offers a tool of that name, its arguments are a JSON object, and the object fits the tool's
parameter schema (where that is a usable one; `format` is not checked). Source: a definition of this project, with the
meaning "valid" has for structured answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flywheel_assets.core.metrics.arguments import parse_arguments
from flywheel_assets.core.metrics.schemas import validator_of
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall


def valid_call(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer calls something and every one of its calls is valid.

    None where the reference calls nothing, or where the request lists no tools (nobody can say what is valid there).
    """
    if not row.reference.calls_tools or not row.request.get("tools"):
        return None
    made = answer.tool_calls
    return float(bool(made) and count_valid(row.request, answer) == len(made))


def count_valid(request: Mapping[str, Any], answer: Answer) -> int:
    """How many of an answer's calls are valid."""
    if not answer.tool_calls:
        return 0
    offered = {}
    for tool in request.get("tools") or ():
        function = tool.get("function") or {}
        offered[function.get("name")] = function.get("parameters")
    return sum(call.name in offered and _fits(call, offered[call.name]) for call in answer.tool_calls)


def _fits(call: ToolCall, schema: Any) -> bool:
    arguments = parse_arguments(call.arguments)
    if arguments is None:
        return False
    validator = validator_of(schema)
    return validator is None or validator.is_valid(arguments)
