"""The template check: a chat template that drops part of a conversation is refused before training.

What belongs here: the probe conversation and the sentence that says what was lost. What does not: rendering itself, which
is the tokenizer's.

A model's own template often knows neither tools nor system messages and leaves them out without a word; the model would
then be trained to guess, and score badly for no visible reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .failure import FailureKind, TrainerError
from .rows import Render, Row

_NEXT_STEP = (
    "Set `chat_template: chatml-tools` for the candidate in flywheel.yaml, or name a template file that renders them."
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "zqprobetool",
        "description": "zqprobedescription",
        "parameters": {
            "type": "object",
            "properties": {"zqprobeparameter": {"type": "string"}},
            "required": ["zqprobeparameter"],
        },
    },
}
_CALL = {
    "id": "zq0000001",
    "type": "function",
    "function": {"name": "zqprobetool", "arguments": {"zqprobeargument": "zqprobevalue"}},
}


def check_template(render: Render, rows: Iterable[Row]) -> None:
    """Render a probe of everything the rows use and look for each part in the text; TrainerError names what is missing."""
    needs_system = needs_tools = needs_results = False
    for row in rows:
        roles = {message.get("role") for message in row.prompt}
        needs_system = needs_system or bool(roles & {"system", "developer"})
        needs_tools = needs_tools or bool(row.tools) or any(m.get("tool_calls") for m in row.prompt + row.completion)
        needs_results = needs_results or "tool" in roles
    user = {"role": "user", "content": "zqprobeuser"}
    _require(render, "user messages", [user], None, ["zqprobeuser"])
    answer = {"role": "assistant", "content": "zqprobeanswer"}
    _require(render, "assistant messages", [user, answer], None, ["zqprobeuser", "zqprobeanswer"])
    if needs_system:
        _require(render, "system messages", [{"role": "system", "content": "zqprobesystem"}, user], None, ["zqprobesystem"])
    if needs_tools:
        shown = ["zqprobetool", "zqprobedescription", "zqprobeparameter"]
        _require(render, "tools", [user], [_TOOL], shown)
        if needs_system:
            system = {"role": "system", "content": "zqprobesystem"}
            _require(render, "system messages beside tools", [system, user], [_TOOL], ["zqprobesystem", *shown])
        call = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
        # Without the tools in the text, the name can only come from the call itself.
        called = ["zqprobetool", "zqprobeargument", "zqprobevalue"]
        _require(render, "tool calls", [user, call], None, called)
        if needs_results:
            result = {"role": "tool", "tool_call_id": "zq0000001", "name": "zqprobetool", "content": "zqproberesult"}
            _require(render, "tool results", [user, call, result], [_TOOL], ["zqproberesult"])


def _require(
    render: Render, what: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, markers: list[str]
) -> None:
    text = _rendered(lambda: render(messages, tools, messages[-1]["role"] != "assistant"), what)
    if lost := [marker for marker in markers if marker not in text]:
        part = {"zqprobedescription": "their descriptions", "zqprobeparameter": "their parameters"}.get(lost[0], "them")
        raise TrainerError(
            FailureKind.TEMPLATE,
            f"The candidate's chat template drops {what} (it leaves out {part}), and this workload uses them.",
            _NEXT_STEP,
        )


def _rendered(render: Callable[[], str], what: str) -> str:
    try:
        return render()
    # A template raises whatever it likes: jinja2 errors, or its own raise_exception("... not supported").
    except Exception as error:  # noqa: BLE001
        raise TrainerError(
            FailureKind.TEMPLATE,
            f"The candidate's chat template cannot render {what} ({type(error).__name__}: {error}).",
            _NEXT_STEP,
        ) from None
