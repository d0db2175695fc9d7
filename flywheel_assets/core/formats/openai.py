"""OpenAI's fine-tuning files: `messages`, `tools`, `parallel_tool_calls`, and assistant turns with a `weight`.

What belongs here: this format. What does not: preference pairs (`input`, `preferred_output`), which hold no one answer.
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import tools_of
from flywheel_assets.core.formats.conversation import record_of, source_id
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

# The request's other fields, and the form before tools, which is refused by name further on.
_OPTIONS = ("parallel_tool_calls", "tool_choice", "response_format", "model", "functions", "function_call")
_OTHERS = ("request", "response", "conversations", "prompt", "completion")


class OpenAIFormat:
    """Fine-tuning JSONL; the answer is the last assistant turn that is trained on."""

    name = "openai"
    title = "OpenAI fine-tuning JSONL: messages, tools, weight"

    def recognises(self, value: Json) -> bool:
        """A list of messages with roles, and none of the names other formats have."""
        messages = value.get("messages")
        return (
            type(messages) is list
            and bool(messages)
            and all(type(message) is dict and type(message.get("role")) is str for message in messages)
            and not any(name in value for name in _OTHERS)
        )

    def records(self, value: Json) -> list[Json]:
        """The conversation up to the last assistant turn whose weight is not 0."""
        messages = value.get("messages")
        if type(messages) is not list:
            raise FormatError(RejectReason.MISSING_FIELD, "messages is missing, or no list")
        trained = [position for position, message in enumerate(messages) if _is_trained(message, position)]
        if not trained and any(message.get("role") == "assistant" for message in messages):
            raise FormatError(RejectReason.NO_ANSWER, "every assistant turn has weight 0: none is to be learnt from")
        end = trained[-1] + 1 if trained else len(messages)
        bare = [{key: held for key, held in message.items() if key != "weight"} for message in messages[:end]]
        options = {name: value.get(name) for name in _OPTIONS}
        return [record_of(bare, tools_of(value.get("tools"), "tools"), options=options, source_id=source_id(value))]


def _is_trained(message: Any, position: int) -> bool:
    if type(message) is not dict:
        raise FormatError(RejectReason.BAD_FIELD_TYPE, f"messages[{position}] must be an object")
    weight = message.get("weight", 1)
    if weight not in (0, 1, None):
        raise FormatError(RejectReason.BAD_FIELD_TYPE, f"messages[{position}].weight must be 0 or 1")
    return message.get("role") == "assistant" and weight != 0
