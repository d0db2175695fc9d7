"""Hermes function calling: ShareGPT turns whose text holds tools, calls and results between tags.

What belongs here: this format. What does not: the tags (`tags`).
"""

from __future__ import annotations

from flywheel_assets.core.formats.calls import calls_of, tools_of
from flywheel_assets.core.formats.conversation import Conversation, record_of, source_id
from flywheel_assets.core.formats.embedded import as_text
from flywheel_assets.core.formats.tags import is_tagged, results_in, split_calls, tools_in, without_tools
from flywheel_assets.core.formats.turns import Speaker, is_conversation, turns_of
from flywheel_assets.core.rows import Json


class HermesFormat:
    """Conversations with `<tools>` in the system turn and `<tool_call>` in the assistant's."""

    name = "hermes"
    title = "Hermes function calling: <tools>, <tool_call> and <tool_response> in conversations"

    def recognises(self, value: Json) -> bool:
        """Turns of known speakers with tools or calls between tags."""
        return is_conversation(value) and is_tagged(value)

    def records(self, value: Json) -> list[Json]:
        """The conversation up to its last assistant turn, with the tools beside it instead of in the system turn."""
        conversation = Conversation()
        listed = tools_of(value.get("tools"), "tools")
        offered: list[Json] = []
        for position, (speaker, said) in enumerate(turns_of(value)):
            if speaker is Speaker.SYSTEM:
                offered += [] if listed else tools_in(said)
                if prompt := without_tools(said):
                    conversation.say("system", prompt)
            elif speaker is Speaker.USER:
                conversation.say("user", said)
            elif speaker is Speaker.ASSISTANT:
                conversation.answer(*split_calls(said))
            elif speaker is Speaker.CALL:
                conversation.answer(None, calls_of(said, f"conversations[{position}]"))
            else:
                for text, name in results_in(as_text(said)):
                    conversation.result(text, name)
        return [record_of(conversation.messages, listed or offered, source_id=source_id(value))]
