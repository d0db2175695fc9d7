"""From a program traced with the official SDK to records: `langfuse.openai`, plain OpenTelemetry spans, late feedback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Fault, OpenAIDouble
from tests.langfuse_rows import Reading, reading
from tests.langfuse_server import LangfuseServer

Json = dict[str, Any]
PROGRAM = Path(__file__).parents[2] / "traced_program.py"
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}


def answer(body: Json) -> Json:
    if body.get("tools"):
        return {"role": "assistant", "content": None, "tool_calls": [CALL]}
    return {"role": "assistant", "content": '{"ok": true}'}


class Traced:
    """A traced program that runs, and the reading of what it traced."""

    def __init__(self, langfuse: Reading, openai: OpenAIDouble) -> None:
        self.langfuse, self.openai = langfuse, openai
        environment = {**os.environ, **langfuse.server.environment}
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), openai.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def does(self, **command: Any) -> str:
        """One command; its trace id."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        trace_id: str = json.loads(self._process.stdout.readline())["trace_id"]
        return trace_id

    def record(self, trace_id: str, workload: str = "router") -> Json:
        self.langfuse.clock = time.time() + 1
        self.langfuse.sweep()
        (found,) = [r for r in self.langfuse.records(workload).values() if r["langfuse"]["trace_id"] == trace_id]
        return found

    def stop(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with (
        LangfuseServer() as server,
        OpenAIDouble(answer=answer) as openai,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name, value in server.environment.items():
            environment.setenv(name, value)
        program = Traced(reading(server, tmp_path_factory.mktemp("traced"), page_size=100), openai)
        yield program
        program.stop()


ROUTED = {"tags": ["workload:router"], "metadata": {"client_id": "acme"}, "session": "s1"}


def test_a_traced_tool_call_is_a_record_of_what_was_sent_and_answered(traced: Traced) -> None:
    record = traced.record(traced.does(ask="weather in Oslo?", **ROUTED))
    sent = traced.openai.chats[-1]
    assert record["request"] == sent
    assert record["response"]["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert record["response"]["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert (record["client_id"], record["session_id"]) == ("acme", "s1")
    assert record["latency_ms"] > 0 and record["cost_usd"] > 0


def test_a_traced_structured_answer_keeps_its_response_format_and_temperature(traced: Traced) -> None:
    record = traced.record(traced.does(say="hello", **ROUTED))
    assert record["request"] == traced.openai.chats[-1]
    assert record["request"]["response_format"] == {"type": "json_object"} and record["request"]["temperature"] == 0.2
    assert record["response"]["choices"][0]["message"]["content"] == '{"ok": true}'


def test_a_plain_opentelemetry_span_is_a_record_too(traced: Traced) -> None:
    parts = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": 1}}],
                "finish_reason": "tool_call",
            }
        ],
        "gen_ai.tool.definitions": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }
    record = traced.record(traced.does(parts=parts, **ROUTED))
    assert record["request"]["messages"] == [{"role": "user", "content": "hi"}]
    assert record["request"]["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    choice = record["response"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_feedback_sent_after_the_record_was_read_updates_it(traced: Traced) -> None:
    trace_id = traced.does(ask="and in Rome?", **ROUTED)
    assert "feedback" not in traced.record(trace_id)
    traced.does(score=0, trace_id=trace_id)
    traced.does(score="It is Rome.", name="output", data_type="TEXT", trace_id=trace_id)
    assert traced.record(trace_id)["feedback"] == {"score": 0.0, "correction": "It is Rome."}


def test_a_call_that_failed_is_refused_as_an_error_with_its_link(traced: Traced) -> None:
    traced.openai.faults.append(Fault(500))
    trace_id = traced.does(ask="fail", **ROUTED)
    traced.langfuse.clock = time.time() + 1
    assert traced.langfuse.sweep().report.reasons["error_response"] == 1
    (refused,) = [reject for reject in traced.langfuse.store.rejects("router") if reject.reason == "error_response"]
    assert refused.origin.endswith(f"/project/proj1/traces/{trace_id}")


def test_a_server_of_4_16_loses_the_scores_of_sdk_5_and_we_say_so(traced: Traced) -> None:
    trace_id = traced.does(ask="old server", **ROUTED)
    traced.langfuse.server.version = "4.16.0"
    try:
        traced.does(score=1, trace_id=trace_id)
        assert traced.langfuse.server.refused_scores >= 1
        assert "they are lost" in traced.langfuse.source.check().advice
    finally:
        traced.langfuse.server.version = "5.2.0"
