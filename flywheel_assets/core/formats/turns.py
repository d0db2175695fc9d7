"""Conversations as lists of turns with a speaker: what ShareGPT and Hermes have in common.

What belongs here: who the speakers are, and reading the list. What does not: what a turn's text means (`sharegpt`,
`hermes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json


class Speaker(Enum):
    """Who speaks in a turn."""

    SYSTEM = auto()
    USER = auto()
    ASSISTANT = auto()
    CALL = auto()
    RESULT = auto()


_SPEAKERS = {
    "system": Speaker.SYSTEM,
    "human": Speaker.USER,
    "user": Speaker.USER,
    "gpt": Speaker.ASSISTANT,
    "assistant": Speaker.ASSISTANT,
    "chatgpt": Speaker.ASSISTANT,
    "function_call": Speaker.CALL,
    "tool_call": Speaker.CALL,
    "observation": Speaker.RESULT,
    "tool": Speaker.RESULT,
    "tool_response": Speaker.RESULT,
    "function_response": Speaker.RESULT,
}
_KEYS = (("from", "value"), ("role", "content"))


def is_conversation(value: Json) -> bool:
    """Whether a row has `conversations`, turns of known speakers and nothing else: `turns_of` then raises nothing."""
    turns = value.get("conversations")
    return type(turns) is list and bool(turns) and all((keys := _keys(turn)) and _is_said(turn, keys) for turn in turns)


def turns_of(value: Json) -> Iterator[tuple[Speaker, Any]]:
    """The turns of a row in order: who, and what was said, which is text unless it is a call or a result.

    Raises FormatError.
    """
    turns = value.get("conversations")
    if type(turns) is not list:
        raise FormatError(RejectReason.MISSING_FIELD, "conversations is missing, or no list")
    for position, turn in enumerate(turns):
        where = f"conversations[{position}]"
        if type(turn) is not dict:
            raise FormatError(RejectReason.BAD_FIELD_TYPE, f"{where} must be an object")
        keys = _keys(turn)
        if keys is None:
            known = ", ".join(_SPEAKERS)
            detail = f"{where} must have `from` and `value`, and speak as one of: {known}"
            raise FormatError(RejectReason.UNKNOWN_ROLE, detail)
        if not _is_said(turn, keys):
            raise FormatError(RejectReason.BAD_FIELD_TYPE, f"{where}.{keys[1]} must be text")
        yield _SPEAKERS[turn[keys[0]]], turn[keys[1]]


def _is_said(turn: Json, keys: tuple[str, str]) -> bool:
    return type(turn[keys[1]]) is str or _SPEAKERS[turn[keys[0]]] in (Speaker.CALL, Speaker.RESULT)


def _keys(turn: Any) -> tuple[str, str] | None:
    """The names a turn has for its speaker and what was said; None where it is no turn."""
    if type(turn) is not dict:
        return None
    for keys in _KEYS:
        speaker = turn.get(keys[0])
        if type(speaker) is str and speaker in _SPEAKERS and keys[1] in turn:
            return keys
    return None
