"""The chat half of a record: is this an OpenAI chat-completions request, and is that its completion?

What belongs here: the shape of `request` and `response`, checked in one pass, with tool-call arguments that were logged
as objects rewritten to JSON strings in place. What does not: the envelope around them (`parse`), and any judgement on
whether the traffic is supported: an image part is well formed.

Each function raises `Refusal` at the first broken rule and returns nothing.
"""

from __future__ import annotations

from typing import Any

import orjson

from flywheel_assets.core.records.refusal import Refusal, json_bytes, missing, shown, wrong_type
from flywheel_assets.core.records.types import RejectReason
from flywheel_assets.core.rows import Json

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

# What other OpenAI endpoints send where chat completions send `messages`.
_NON_CHAT_INPUTS = ("prompt", "input", "inputs", "query", "documents", "file")
_NON_CHAT_RESPONSES = frozenset({"text_completion", "embedding", "response", "list", "image", "moderation"})
# What an assistant message may carry instead of content.
_INSTEAD_OF_CONTENT = ("tool_calls", "refusal", "audio")


def check_request(request: Any, response: Any) -> None:
    """Check `request`; `response` is looked at only to tell other endpoints' traffic from a broken chat request."""
    if type(request) is not dict:
        raise missing("request") if request is None else wrong_type("request", "an object", request)
    messages = request.get("messages")
    if messages is None:
        _refuse_non_chat(request, response)
        raise missing("request.messages")
    if type(messages) is not list:
        raise wrong_type("request.messages", "a list", messages)
    if not messages:
        raise Refusal(RejectReason.EMPTY_MESSAGES, "request.messages is empty")
    if request.get("functions") or request.get("function_call"):
        raise _legacy("request.functions and request.function_call")
    for position, message in enumerate(messages):
        _check_message(message, "request.messages", position)
    tools = request.get("tools")
    if tools is not None:
        _check_tools(tools)
    _check_options(request)


def check_response(response: Any) -> None:
    """Check `response`: a chat completion whose first choice is an assistant message. Further choices are not looked at."""
    if type(response) is not dict:
        raise missing("response") if response is None else wrong_type("response", "an object", response)
    choices = response.get("choices")
    if choices is None:
        if response.get("error"):
            raise Refusal(RejectReason.ERROR_RESPONSE, "response is an error, not a completion")
        raise missing("response.choices")
    if type(choices) is not list:
        raise wrong_type("response.choices", "a list", choices)
    if not choices:
        raise Refusal(RejectReason.NO_CHOICES, "response.choices is empty")
    choice = choices[0]
    if type(choice) is not dict:
        raise wrong_type("response.choices[0]", "an object", choice)
    message = choice.get("message")
    if message is None:
        if "delta" in choice:
            raise missing("response.choices[0].message (this is a streamed chunk, log the whole completion)")
        raise missing("response.choices[0].message")
    if type(message) is dict:
        if message.get("role") is None:
            raise missing("response.choices[0].message.role")
        if message["role"] != "assistant":
            found = shown(message["role"])
            raise Refusal(RejectReason.UNKNOWN_ROLE, f"response.choices[0].message.role must be 'assistant', found {found}")
    _check_message(message, "response.choices", 0, ".message")
    model = response.get("model")
    if model is not None and type(model) is not str:
        raise wrong_type("response.model", "text", model)


def check_correction(message: Json) -> None:
    """Check `feedback.correction` that is an assistant message; a missing role is filled in."""
    if message.setdefault("role", "assistant") != "assistant":
        found = shown(message["role"])
        raise Refusal(RejectReason.UNKNOWN_ROLE, f"feedback.correction.role must be 'assistant', found {found}")
    _check_message(message, "feedback.correction")


def _refuse_non_chat(request: Json, response: Any) -> None:
    for name in _NON_CHAT_INPUTS:
        if name in request:
            raise Refusal(
                RejectReason.NOT_CHAT, f"request has `{name}` and no `messages`: only chat-completions traffic is supported"
            )
    kind = response.get("object") if type(response) is dict else None
    if type(kind) is str and kind in _NON_CHAT_RESPONSES:
        raise Refusal(RejectReason.NOT_CHAT, f"response.object is {shown(kind)}: only chat-completions traffic is supported")


def _check_message(message: Any, path: str, position: int | None = None, suffix: str = "") -> None:
    if type(message) is not dict:
        raise wrong_type(_at(path, position, suffix), "an object", message)
    role = message.get("role")
    if type(role) is not str or role not in ROLES:
        where = _at(path, position, suffix) + ".role"
        if role is None:
            raise missing(where)
        if role == "function":
            raise _legacy(f"{where} 'function'")
        raise Refusal(RejectReason.UNKNOWN_ROLE, f"{where} is {shown(role)}, known are {', '.join(sorted(ROLES))}")
    content = message.get("content")
    if type(content) is list:
        _check_parts(content, _at(path, position, suffix) + ".content")
    elif content is None:
        _check_contentless(message, role, _at(path, position, suffix))
    elif type(content) is not str:
        raise wrong_type(_at(path, position, suffix) + ".content", "text, null or a list of parts", content)
    if message.get("function_call"):
        raise _legacy(_at(path, position, suffix) + ".function_call")
    calls = message.get("tool_calls")
    if calls is not None:
        _check_tool_calls(calls, role, _at(path, position, suffix) + ".tool_calls")


def _at(path: str, position: int | None, suffix: str) -> str:
    """Where a message stands: in a list, or by itself."""
    return f"{path}{suffix}" if position is None else f"{path}[{position}]{suffix}"


def _check_contentless(message: Json, role: str, where: str) -> None:
    if role != "assistant":
        raise missing(f"{where}.content")
    if message.get("function_call"):
        raise _legacy(f"{where}.function_call")
    if not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
        raise Refusal(RejectReason.EMPTY_MESSAGE, f"{where} has neither content nor tool_calls")


def _check_parts(parts: list[Any], where: str) -> None:
    if not parts:
        raise Refusal(RejectReason.EMPTY_MESSAGE, f"{where} is an empty list")
    for position, part in enumerate(parts):
        if type(part) is not dict or type(part.get("type")) is not str:
            raise Refusal(RejectReason.MALFORMED_CONTENT, f"{where}[{position}] must be an object with a text `type`")
        if part["type"] == "text" and type(part.get("text")) is not str:
            raise Refusal(RejectReason.MALFORMED_CONTENT, f"{where}[{position}].text must be text")


def _check_tool_calls(calls: Any, role: str, where: str) -> None:
    if type(calls) is not list:
        raise Refusal(RejectReason.MALFORMED_TOOL_CALLS, f"{where} must be a list, found {shown(calls)}")
    if calls and role != "assistant":
        raise Refusal(RejectReason.MALFORMED_TOOL_CALLS, f"{where} stands in a {role} message, where none belong")
    for position, call in enumerate(calls):
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or call.get("type", "function") != "function":
            raise Refusal(RejectReason.MALFORMED_TOOL_CALLS, f"{where}[{position}] must be a call of type function")
        name = function.get("name")
        if type(name) is not str or not name:
            raise Refusal(RejectReason.MALFORMED_TOOL_CALLS, f"{where}[{position}] names no function")
        arguments = function.get("arguments")
        if type(arguments) is dict:
            function["arguments"] = json_bytes(arguments).decode()
        else:
            _check_arguments(arguments, f"{where}[{position}].function.arguments")


def _check_arguments(arguments: Any, where: str) -> None:
    if type(arguments) is not str:
        found = shown(arguments)
    else:
        try:
            value = orjson.loads(arguments)
        except orjson.JSONDecodeError as error:
            found = f"text that is not JSON ({error.msg})"
        else:
            if type(value) is dict:
                return
            found = f"text that holds {shown(value)}"
    raise Refusal(RejectReason.MALFORMED_TOOL_ARGUMENTS, f"{where} must be a JSON object as text, found {found}")


def _check_tools(tools: Any) -> None:
    if type(tools) is not list:
        raise Refusal(RejectReason.MALFORMED_TOOLS, f"request.tools must be a list, found {shown(tools)}")
    for position, tool in enumerate(tools):
        if fault := _tool_fault(tool):
            raise Refusal(RejectReason.MALFORMED_TOOLS, f"request.tools[{position}]{fault}")


def _tool_fault(tool: Any) -> str | None:
    """What is wrong with a tool, as the end of a sentence that began with its place."""
    if type(tool) is not dict:
        return f" must be an object, found {shown(tool)}"
    if tool.get("type") != "function":
        return f".type must be 'function', found {shown(tool.get('type'))}"
    function = tool.get("function")
    if type(function) is not dict:
        return f".function must be an object, found {shown(function)}"
    name = function.get("name")
    if type(name) is not str or not name:
        return f".function.name must be text, found {shown(name)}"
    parameters = function.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        return ".function.parameters must be a JSON schema object"
    return None


def _check_options(request: Json) -> None:
    model = request.get("model")
    if model is not None and type(model) is not str:
        raise wrong_type("request.model", "text", model)
    choice = request.get("tool_choice")
    if choice is not None and type(choice) not in (str, dict):
        raise wrong_type("request.tool_choice", "text or an object", choice)
    response_format = request.get("response_format")
    if response_format is not None and type(response_format) is not dict:
        raise wrong_type("request.response_format", "an object", response_format)


def _legacy(what: str) -> Refusal:
    detail = f"{what}: the form before tools; rewrite functions as tools and function_call as tool_calls"
    return Refusal(RejectReason.LEGACY_FUNCTIONS, detail)
