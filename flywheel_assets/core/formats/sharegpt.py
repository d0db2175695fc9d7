"""ShareGPT: `conversations` of `from` and `value`, calls and results as turns of their own, tools beside them.

What belongs here: this format. What does not: calls between tags inside the text (`hermes`).
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import calls_of, tools_of
from flywheel_assets.core.formats.conversation import Conversation, record_of, source_id
from flywheel_assets.core.formats.embedded import as_text
from flywheel_assets.core.formats.tags import is_tagged
from flywheel_assets.core.formats.turns import Speaker, is_conversation, turns_of
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

_ROLES = {Speaker.SYSTEM: "system", Speaker.USER: "user"}


class ShareGPTFormat:
    """Conversations of `from` and `value`, with `function_call` and `observation` turns."""

    name = "sharegpt"
    title = "ShareGPT: conversations of from/value, function_call and observation turns, tools"

    def recognises(self, value: Json) -> bool:
        """Turns of known speakers, and no Hermes tags in them."""
        return is_conversation(value) and not is_tagged(value)

    def records(self, value: Json) -> list[Json]:
        """The conversation up to its last assistant turn."""
        conversation = Conversation()
        system = value.get("system")
        if type(system) is str and system.strip():
            conversation.say("system", system)
        elif system is not None and type(system) is not str:
            raise FormatError(RejectReason.BAD_FIELD_TYPE, "system must be text")
        for position, (speaker, said) in enumerate(turns_of(value)):
            _take(conversation, speaker, said, f"conversations[{position}]")
        tools = tools_of(value.get("tools"), "tools")
        return [record_of(conversation.messages, tools, source_id=source_id(value))]


def _take(conversation: Conversation, speaker: Speaker, said: Any, where: str) -> None:
    if speaker is Speaker.CALL:
        calls = calls_of(said, where)
        if not calls:
            raise FormatError(RejectReason.MALFORMED_TOOL_CALLS, f"{where} calls nothing")
        conversation.answer(None, calls)
    elif speaker is Speaker.RESULT:
        conversation.result(as_text(said))
    elif speaker is Speaker.ASSISTANT:
        conversation.answer(said, ())
    else:
        conversation.say(_ROLES[speaker], said)
