"""Answered: whether an answer is one at all, where an answer in words is due.

What belongs here: the metric `answered`, and how a call that a server left in the text is told from prose. What does not:
whether the text is any good (`core.metrics.text`, `core.judge`).

A call in the text is found by the marks that models and servers write around calls, and by JSON or code that would call a
tool the request offers. Text that talks about tools, JSON or tags is prose. Source: a definition of this project.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flywheel_assets.core.metrics.arguments import parse_document
from flywheel_assets.core.rows import Answer, EvalRow

# Reasoning that a server left in the text; where it has no end, all of the text is reasoning.
_REASONING = re.compile(r"\A\s*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)|\A[^<]*</think>", re.DOTALL | re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|unk)>")
# No model writes one of these in prose: control tokens of Llama 3, Mistral, DeepSeek, Kimi, InternLM, Command R and others.
_CONTROL = re.compile(
    r"<[|｜](?:python_tag|tool|function|action_start|START_ACTION|plugin)[^<>\n]{0,40}[|｜]>"
    r"|\[TOOL_CALLS\]\s*[\[{\w]|<start_function_call>|\bto=functions\.\w|✿FUNCTION✿"
    r"|(?:^|\n)\s*functools\s*\[|(?:^|\n)```tool_(?:code|call)"
)
# A tag that opens a call: with attributes, or with what a call begins with behind it. `<tool_call>` alone may be quoted.
_TAG = re.compile(
    r"<(?:tool_calls?|toolcalls?|function_calls?|functioncalls?|tool_use|invoke)"
    r"(?:\s+[\w-]+\s*=\s*[\"'][^\"'<>]*[\"'][^<>]*/?>|>\s*(?:[\[{<]|\Z|(?P<name>[\w.-]+)\s*(?:\n|<|\(|\{)))",
    re.IGNORECASE,
)
_FUNCTION_TAG = re.compile(r"<function(?:=|\s+name\s*=\s*)[\"']?[\w.-]+[\"']?\s*>?\s*(?:[<{(]|\Z|\n)", re.IGNORECASE)
_FENCE = re.compile(r"\A```[\w-]*\s*\n(.*?)\n?```\Z", re.DOTALL)
_REACT = re.compile(r"^\s*Action:\s*`?([\w.-]+)`?\s*$", re.MULTILINE)
_CODE_CALL = re.compile(r"\A\[?\s*(?:\w+\s*=\s*)?(?:print\()?([\w.-]+)\((.*)\)\s*;?\s*\]?\Z", re.DOTALL)
_NAMES = ("name", "function", "tool", "tool_name", "function_name", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input", "params", "kwargs")
_LISTS = ("tool_calls", "function_calls", "tool_uses", "calls")
# A text holds few objects that begin with a tool's name; one that loops must not cost the evaluation its time.
_MOST_OBJECTS = 50
_DECODER = json.JSONDecoder()


def answered(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer is one in words: a text, finished, that calls no tool, neither properly nor by a call in the text.

    Null where a call is expected. Whether the text is right is not looked at. A teacher that said nothing there has 0, too.
    """
    if row.reference.calls_tools:
        return None
    if answer.calls_tools or answer.cut_off is not None or not answer.content:
        return 0.0
    text = _REASONING.sub("", answer.content, count=1)
    return float(_says_something(text) and not holds_a_call(text, offered_names(row.request)))


def offered_names(request: Mapping[str, Any]) -> frozenset[str]:
    """The names of the tools that a request offers, those in the old form (`functions`) included."""
    offered = [tool.get("function") for tool in request.get("tools") or () if isinstance(tool, Mapping)]
    offered += request.get("functions") or ()
    return frozenset(tool["name"] for tool in offered if isinstance(tool, Mapping) and isinstance(tool.get("name"), str))


def holds_a_call(text: str, offered: Collection[str]) -> bool:
    """Whether a text is, or holds, a call that was meant for a tool. `offered` are the names of the tools on offer."""
    return _is_tagged(text, offered) or _is_written(text.strip(), offered)


def _says_something(text: str) -> bool:
    return any(not char.isspace() and unicodedata.category(char)[0] != "C" for char in _SPECIAL_TOKEN.sub("", text))


def _is_tagged(text: str, offered: Collection[str]) -> bool:
    """By the marks around it."""
    if _CONTROL.search(text) or any(not _is_quoted(text, tag) for tag in _FUNCTION_TAG.finditer(text)):
        return True
    # A word behind a tag is a call where it is a tool's name, and prose otherwise.
    found = (tag for tag in _TAG.finditer(text) if not _is_quoted(text, tag))
    return any(tag["name"] is None or tag["name"] in offered for tag in found)


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag stands in backticks, as one does that is talked about."""
    before = text[max(0, tag.start() - 3) : tag.start()]
    return before.endswith("`") and before != "```"


def _is_written(text: str, offered: Collection[str]) -> bool:
    """As JSON, as code, or in the lines of a ReAct prompt."""
    if not offered:
        return False
    if any(action[1] in offered for action in _REACT.finditer(text)):
        return True
    fenced = _FENCE.match(text)
    whole = fenced[1].strip() if fenced else text
    if whole[:1] in ("{", "["):
        document = parse_document(whole)
        if document is not None and _is_call(document, offered, alone=True):
            return True
    code = _CODE_CALL.match(whole)
    if code is not None and code[1] in offered:
        return True
    return any(_is_call(value, offered, alone=False) for value in _objects(text, offered))


def _objects(text: str, offered: Collection[str]) -> Iterator[Any]:
    """The JSON objects in a text that name a tool."""
    if "{" not in text or not any(name in text for name in offered):
        return
    place = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if place < 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            yield value
        place = text.find("{", end)


def _is_call(value: Any, offered: Collection[str], *, alone: bool) -> bool:
    """Whether JSON calls a tool on offer. Amid prose it must bring arguments; `alone`, the name is enough."""
    if isinstance(value, list):
        return bool(value) and all(_is_call(item, offered, alone=alone) for item in value)
    if not isinstance(value, dict):
        return False
    if any(isinstance(value.get(key), list) and _is_call(value[key], offered, alone=alone) for key in _LISTS):
        return True
    if isinstance(value.get("function"), dict):
        return _is_call(value["function"], offered, alone=alone)
    named = (value[key] for key in _NAMES if isinstance(value.get(key), str))
    if any(name.removeprefix("functions.") in offered for name in named):
        return any(key in value for key in _ARGUMENTS) or (alone and len(value) == 1)
    # {"order_status": {"order": 7}}
    only = next(iter(value)) if len(value) == 1 else None
    return alone and only in offered and isinstance(value[only], dict)
