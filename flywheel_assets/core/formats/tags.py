"""Tools, calls and results between tags, as Hermes models write them: `<tools>`, `<tool_call>`, `<tool_response>`.

What belongs here: finding the tags and reading what stands between them. What does not: the conversation around them
(`hermes`). Everything is linear in the length of the text: it comes from strangers.
"""

from __future__ import annotations

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import calls_of, tools_of
from flywheel_assets.core.formats.embedded import NotJson, as_text, read_value
from flywheel_assets.core.formats.turns import Speaker, turns_of
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

_TOOLS, _TOOLS_END = "<tools>", "</tools>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_RESULT, _RESULT_END = "<tool_response>", "</tool_response>"


def is_tagged(value: Json) -> bool:
    """Whether a system turn offers tools between tags, or an assistant turn calls one. `value` has valid turns."""
    for speaker, said in turns_of(value):
        if speaker is Speaker.SYSTEM and _tool_blocks(said):
            return True
        if speaker is Speaker.ASSISTANT and _CALL in said:
            return True
    return False


def tools_in(system: str) -> list[Json]:
    """The tools a system prompt offers. Raises FormatError (`malformed_tools`)."""
    return [tool for block in _tool_blocks(system) for tool in tools_of(block, _TOOLS)]


def without_tools(system: str) -> str:
    """A system prompt without its part about tools, since they go beside it; empty where that part was all.

    It goes from the sentence that first names `<tools>` to the end of the last `</tools>` or `</tool_call>`.
    """
    first = system.find(_TOOLS)
    ends = [at + len(tag) for tag in (_TOOLS_END, _CALL_END) if (at := system.rfind(tag)) >= 0]
    if first < 0 or not ends or max(ends) < first:
        return system
    start = max(system.rfind(". ", 0, first) + 2, system.rfind("\n", 0, first) + 1)
    # Both are found nowhere: -1 + 2 would cut into the first word.
    start = start if start > 1 else 0
    parts = (system[:start].strip(), system[max(ends) :].strip())
    return "\n".join(part for part in parts if part)


def split_calls(text: str) -> tuple[str | None, list[Json]]:
    """The words of an assistant turn (None where there are none beside calls), and its calls.

    Raises FormatError (`malformed_tool_calls`): a tag that is not closed, or what is between tags is no call.
    """
    words, *blocks = text.split(_CALL)
    if not blocks:
        if _CALL_END in text:
            raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"{_CALL_END} closes what was never opened")
        return text, []
    calls: list[Json] = []
    for number, block in enumerate(blocks, 1):
        inner, closed, after = block.partition(_CALL_END)
        if not closed:
            raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"the {number}. {_CALL} is not closed")
        found = calls_of(inner, f"the {number}. {_CALL}")
        if not found:
            raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"the {number}. {_CALL} is empty")
        calls += found
        words += after
    return words.strip() or None, calls


def results_in(text: str) -> list[tuple[str, str | None]]:
    """The results in a tool turn, each with the name of its tool where it is written; the whole text where no tags are."""
    blocks = _between(text, _RESULT, _RESULT_END) or [text]
    return [_result(block.strip()) for block in blocks]


def _result(block: str) -> tuple[str, str | None]:
    try:
        value = read_value(block)
    except NotJson:
        return block, None
    if type(value) is not dict or "content" not in value or not value.keys() <= {"name", "content", "tool_call_id"}:
        return block, None
    name = value.get("name")
    return as_text(value["content"]), name if type(name) is str else None


def _tool_blocks(system: str) -> list[str]:
    # Prompts name the tags before they use them ("within <tools></tools> XML tags"): no tool stands between those.
    return [block for block in _between(system, _TOOLS, _TOOLS_END) if "{" in block]


def _between(text: str, start: str, end: str) -> list[str]:
    return [inner for inner, closed, _ in (part.partition(end) for part in text.split(start)[1:]) if closed]
