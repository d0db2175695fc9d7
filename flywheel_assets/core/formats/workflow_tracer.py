"""Logs of workflow tracers: one call of an agent a line, with what it was asked, what it answered, and how it went.

What belongs here: this format, and the names its fields go by. What does not: calls that failed: there is no answer to learn
from, so they are refused with a reason of their own.
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import calls_of, tools_of
from flywheel_assets.core.formats.conversation import Conversation, record_of, source_id
from flywheel_assets.core.formats.embedded import as_text
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.records.measures import milliseconds_of
from flywheel_assets.core.rows import Json

_AGENT = ("agent", "agent_name")
_QUERY = ("query", "user_query", "input")
_ANSWER = ("answer", "response", "output")
_CALLS = ("tool_calls", "tools_called")
_SYSTEM = ("system_prompt", "system")
_SESSION = ("session_id", "run_id", "workflow_id", "trace_id")
_MILLISECONDS = ("latency_ms", "duration_ms", "time_ms")
_SECONDS = ("latency_s", "duration_s", "time_s", "execution_time", "duration", "time")
_WHEN = ("timestamp", "started_at")
_COST = ("cost_usd", "cost")
_OUTCOME = (*_ANSWER, *_CALLS, "success", "error")
_OTHERS = ("messages", "conversations", "prompt", "completion", "request", "answers")
_SHOWN_CHARACTERS = 200


class WorkflowTracerFormat:
    """One call of an agent a line; the agent is the workload."""

    name = "workflow-tracer"
    title = "workflow tracer logs: one call of an agent a line, with success, time and cost"

    def recognises(self, value: Json) -> bool:
        """An agent, what it was asked, and what came of it."""
        return (
            type(_first(value, _AGENT)) is str
            and _first(value, _QUERY) is not None
            and any(name in value for name in _OUTCOME)
            and not any(name in value for name in _OTHERS)
        )

    def records(self, value: Json) -> list[Json]:
        """The call as a request and its answer, with `workload_id`, `latency_ms` and `cost_usd`."""
        _refuse_failed(value)
        query = _first(value, _QUERY)
        if query is None:
            raise FormatError(RejectReason.MISSING_FIELD, f"{_QUERY[0]} is missing")
        conversation = Conversation()
        system = _first(value, _SYSTEM)
        if system is not None:
            conversation.say("system", as_text(system))
        conversation.say("user", as_text(query))
        answer = _first(value, _ANSWER)
        calls = calls_of(_first(value, _CALLS), _CALLS[0])
        conversation.answer(None if answer is None else as_text(answer), calls)
        return [
            record_of(
                conversation.messages,
                tools_of(value.get("tools"), "tools"),
                options={"model": value.get("model")},
                workload_id=_first(value, _AGENT),
                client_id=value.get("client_id"),
                session_id=_first(value, _SESSION),
                timestamp=_first(value, _WHEN),
                latency_ms=_latency_ms(value),
                cost_usd=_first(value, _COST),
                source_id=source_id(value),
            )
        ]


def _refuse_failed(value: Json) -> None:
    error, success = value.get("error"), value.get("success")
    if success is not None and type(success) is not bool:
        raise FormatError(RejectReason.BAD_FIELD_TYPE, "success must be true or false")
    if success is False or error:
        said = f": {as_text(error)[:_SHOWN_CHARACTERS]}" if error else ""
        raise FormatError(RejectReason.FAILED_CALL, f"the call failed{said}")


def _latency_ms(value: Json) -> float | None:
    """How long the call took, in milliseconds; a name without a unit means seconds."""
    for names, in_milliseconds in ((_MILLISECONDS, float), (_SECONDS, milliseconds_of)):
        for name in names:
            taken = value.get(name)
            if taken is None:
                continue
            if type(taken) not in (int, float):
                raise FormatError(RejectReason.BAD_FIELD_TYPE, f"{name} must be a number")
            return in_milliseconds(taken)
    return None


def _first(value: Json, names: tuple[str, ...]) -> Any:
    """What stands under the first of these names that is there and holds something."""
    return next((value[name] for name in names if value.get(name) not in (None, "")), None)
