"""A program as users write them, traced with the official SDK: `langfuse.openai` in front of an OpenAI-compatible server.

Run as a process of its own (the SDK keeps one client a process). It reads one JSON command a line and answers each with one
line: `{"ask": TEXT, ...}` makes a chat call with a tool in a trace of its own, `{"say": TEXT}` one without tools,
`{"request": {...}}` one exactly as given,
`{"score": VALUE, "trace_id": ID, ...}` sends feedback, `{"parts": ...}` traces a plain OpenTelemetry `gen_ai` span.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from langfuse import Langfuse, propagate_attributes
from langfuse.openai import OpenAI
from openai import APIError

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SYSTEM = {"role": "system", "content": "Answer briefly."}


def main(openai_url: str) -> None:
    """Serve commands until standard input ends."""
    langfuse = Langfuse()
    openai = OpenAI(base_url=openai_url, api_key="none", max_retries=0)
    for line in sys.stdin:
        command = json.loads(line)
        answer = act(langfuse, openai, command)
        langfuse.flush()
        print(json.dumps(answer), flush=True)
    langfuse.shutdown()


def act(langfuse: Any, openai: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Do one command; says which trace it went into."""
    if "score" in command:
        more = {key: command[key] for key in ("observation_id", "data_type", "comment") if key in command}
        langfuse.create_score(
            name=command.get("name", "user-feedback"), value=command["score"], trace_id=command["trace_id"], **more
        )
        return {"trace_id": command["trace_id"]}
    with (
        langfuse.start_as_current_observation(name="support-agent", as_type="agent") as span,
        propagate_attributes(
            session_id=command.get("session"),
            tags=command.get("tags"),
            metadata=command.get("metadata"),
            trace_name="support",
        ),
    ):
        if "parts" in command:
            _gen_ai_span(command["parts"])
        else:
            _chat(openai, command)
        return {"trace_id": span.trace_id}


def _chat(openai: Any, command: dict[str, Any]) -> None:
    if "request" in command:
        openai.chat.completions.create(**command["request"])
        return
    messages = [SYSTEM, {"role": "user", "content": command.get("ask") or command.get("say")}]
    extra = {"tools": [TOOL]} if "ask" in command else {"temperature": 0.2, "response_format": {"type": "json_object"}}
    try:
        openai.chat.completions.create(model="gpt-4o-mini", messages=messages, **extra)
    except APIError as error:
        # As in production: the user sees an apology, the trace keeps the error.
        print(type(error).__name__, file=sys.stderr)


def _gen_ai_span(attributes: dict[str, Any]) -> None:
    from opentelemetry import trace

    with trace.get_tracer("some-instrumentation").start_as_current_span("chat gpt-4o-mini") as span:
        span.set_attributes({k: v if isinstance(v, str | int) else json.dumps(v) for k, v in attributes.items()})


if __name__ == "__main__":
    main(sys.argv[1])
