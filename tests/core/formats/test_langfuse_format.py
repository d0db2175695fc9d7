"""Langfuse generations become records, in all three forms their inputs have; what cannot is refused with a named reason."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.formats import Format, FormatError
from flywheel_assets.core.formats.langfuse import LangfuseExport, record_of, workload_of
from flywheel_assets.core.formats.reading import read_line
from flywheel_assets.core.records import Record, Reject, RejectReason, parse_record

Json = dict[str, Any]
LIMITS: Json = {"max_bytes": 100_000, "default_workload": "w", "source": None, "received_at": time.time()}
FIXTURE = Path(__file__).parents[2] / "fixtures" / "langfuse_wire.jsonl"
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}


def recorded() -> list[Json]:
    """Every GENERATION of the recording that came with its input."""
    rows: dict[str, Json] = {}
    for line in FIXTURE.read_text().splitlines():
        exchange = json.loads(line)
        if "v2/observations" in exchange["path"] and exchange["status"] == 200:
            found = [row for row in exchange["resp"]["data"] if row["type"] == "GENERATION" and "input" in row]
            rows |= {row["id"]: row for row in found}
    return list(rows.values())


def generation(input: Any, output: Any = '{"role": "assistant", "content": "yes"}', **more: Any) -> Json:  # noqa: A002
    return {
        "id": "o1",
        "traceId": "t1",
        "startTime": "2026-11-22T02:01:38.604Z",
        "endTime": "2026-11-22T02:01:40.104Z",
        "projectId": "proj1",
        "type": "GENERATION",
        "name": "chat",
        "traceName": "support",
        "level": "DEFAULT",
        "environment": "production",
        "input": input if isinstance(input, str) or input is None else json.dumps(input),
        "output": output if isinstance(output, str) or output is None else json.dumps(output),
        "metadata": {},
        "model": "gpt-4o-mini",
        "modelParameters": {},
        "tags": [],
        "sessionId": "",
        **more,
    }


def accepted(row: Json) -> Json:
    """The record of a row, judged as ingest judges it."""
    parsed = parse_record(json.dumps(record_of(row)).encode(), max_bytes=10**6, received_at=time.time())
    assert isinstance(parsed, Record), parsed
    content: Json = json.loads(parsed.body)
    return content


def refused(row: Json) -> FormatError:
    with pytest.raises(FormatError) as caught:
        record_of(row)
    return caught.value


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize("row", recorded(), ids=lambda row: row["id"])
def test_every_recorded_generation_becomes_a_record(row: Json) -> None:
    record = accepted(row)
    assert record["id"] == row["id"]
    assert record["request"]["messages"][-1]["role"] == "user"
    assert record["response"]["choices"][0]["message"]["role"] == "assistant"
    assert record["cost_usd"] == row["totalCost"]
    assert record["latency_ms"] >= 0


def test_a_recorded_tool_call_keeps_tools_call_client_session_and_usage() -> None:
    row = next(row for row in recorded() if row["name"] == "chat")
    record = accepted(row)
    assert record["workload_id"] == "support" and record["client_id"] == "acme" and record["session_id"] == "s1"
    assert record["request"]["tools"][0]["function"]["name"] == "get_weather"
    assert record["request"]["temperature"] == 0.2 and record["request"]["max_tokens"] == 64
    assert record["response"]["choices"][0]["message"]["tool_calls"] == [CALL]
    assert record["response"]["usage"] == {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}


def test_a_message_list_is_an_input() -> None:
    assert accepted(generation([USER]))["request"]["messages"] == [USER]


def test_messages_in_parts_are_an_input_and_an_output() -> None:
    asked = [
        {"role": "system", "parts": [{"type": "text", "content": "be kind"}]},
        {"role": "user", "parts": [{"type": "text", "content": "weather?"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}},
                {"type": "tool_call", "name": "get_time", "arguments": None},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"rain": True}}]},
        {
            "role": "user",
            "parts": [{"type": "text", "content": "a"}, {"type": "uri", "modality": "image", "uri": "http://x"}],
        },
    ]
    said = [{"role": "assistant", "parts": [{"type": "text", "content": "It rains."}], "finish_reason": "stop"}]
    tools = [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}]
    record = accepted(generation(asked, said, metadata={"attributes.gen_ai.tool.definitions": json.dumps(tools)}))
    messages = record["request"]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "user"]
    assert messages[2]["content"] is None
    assert messages[2]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert messages[2]["tool_calls"][1]["function"]["arguments"] == "{}"
    assert messages[3] == {"role": "tool", "content": '{"rain":true}', "tool_call_id": "c1"}
    assert messages[4]["content"][1] == {"type": "image_url", "image_url": {"url": "http://x"}}
    assert record["request"]["tools"][0]["function"]["name"] == "get_weather"
    assert record["response"]["choices"][0]["message"]["content"] == "It rains."
    assert record["response"]["choices"][0]["finish_reason"] == "stop"


def test_a_tool_call_in_parts_ends_for_openais_reason_and_instructions_come_first() -> None:
    said = [{"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f"}], "finish_reason": "tool_call"}]
    instructions = [{"type": "text", "content": "be kind"}]
    row = generation([USER], said, metadata={"attributes": {"gen_ai.system_instructions": instructions}})
    record = accepted(row)
    assert record["request"]["messages"][0] == {"role": "system", "content": "be kind"}
    assert record["response"]["choices"][0]["finish_reason"] == "tool_calls"


def test_what_the_wrapper_invents_is_dropped_and_what_was_sent_stays() -> None:
    invented = {"temperature": 1, "max_tokens": "Infinity", "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
    assert set(accepted(generation([USER], modelParameters=invented))["request"]) == {"messages", "model"}
    sent = {**invented, "temperature": "0.3", "max_tokens": "64", "seed": 7}
    request = accepted(generation([USER], modelParameters=json.dumps(sent)))["request"]
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.3, 64, 7)
    assert "top_p" not in request


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        ('{"type": "json_object"}', {"type": "json_object"}),
        (
            {"title": "Mood", "type": "object", "properties": {}},
            {
                "type": "json_schema",
                "json_schema": {"name": "Mood", "schema": {"title": "Mood", "type": "object", "properties": {}}},
            },
        ),
    ],
)
def test_the_response_format_comes_out_of_the_metadata(written: Any, read: Json) -> None:
    assert accepted(generation([USER], metadata={"response_format": written}))["request"]["response_format"] == read


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("just text", "just text"),
        ('"quoted text"', "quoted text"),
        ('{"intent": "refund"}', '{"intent": "refund"}'),
        ("[1, 2]", "[1, 2]"),
        ('{"role": "assistant", "content": "a", "refusal": null, "audio": null}', "a"),
        ('{"content": "no role"}', "no role"),
        ('[{"role": "assistant", "content": "first"}, {"role": "assistant", "content": "second"}]', "first"),
        ('{"choices": [{"message": {"role": "assistant", "content": "whole"}}]}', "whole"),
    ],
)
def test_every_way_of_writing_an_answer_down_is_read(output: str, content: str) -> None:
    message = accepted(generation([USER], output))["response"]["choices"][0]["message"]
    assert message["content"] == content and message["role"] == "assistant"
    assert "audio" not in message


def test_a_streamed_tool_call_gets_its_type_and_the_reason_it_ended() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    row = generation([USER], {"role": "assistant", "tool_calls": [call]}, metadata={"finish_reason": "tool_calls"})
    choice = accepted(row)["response"]["choices"][0]
    assert choice["message"]["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (generation([USER], type="SPAN"), RejectReason.NOT_CHAT),
        (generation([USER], level="ERROR", statusMessage="rate limited"), RejectReason.ERROR_RESPONSE),
        (generation([USER], endTime=None), RejectReason.UNFINISHED),
        (generation('[{"role": "user", "content": "cut of'), RejectReason.TRUNCATED),
        (generation([USER], '{"role": "assistant", "content": "cut of'), RejectReason.TRUNCATED),
        (generation([USER], metadata={"response_format": '{"type": "json_sch'}), RejectReason.TRUNCATED),
        (generation("complete this sentence"), RejectReason.NOT_CHAT),
        (generation({"input": "responses API", "instructions": "x"}), RejectReason.NOT_CHAT),
        (generation(None), RejectReason.MISSING_FIELD),
        (generation([USER], None), RejectReason.MISSING_FIELD),
        (generation([USER], ""), RejectReason.MISSING_FIELD),
    ],
)
def test_what_is_no_finished_chat_generation_is_refused_with_its_reason(row: Json, reason: RejectReason) -> None:
    assert refused(row).reason is reason


def test_an_integer_that_no_float_holds_breaks_nothing() -> None:
    # `json` reads such a number, and the API's answers are read by it.
    record = accepted(generation([USER], latency=10**400, totalCost=10**400, usageDetails={"input": 10**400, "output": 2}))
    assert record["latency_ms"] == 1500.0 and record.get("cost_usd") is None
    assert "prompt_tokens" not in record["response"]["usage"]


def test_a_generation_without_end_in_latency_is_measured_by_its_times() -> None:
    assert accepted(generation([USER], latency=None))["latency_ms"] == 1500.0
    assert accepted(generation([USER], latency=0.25))["latency_ms"] == 250.0


def test_without_a_session_the_trace_is_the_conversation() -> None:
    assert accepted(generation([USER]))["session_id"] == "t1"
    assert accepted(generation([USER], sessionId="s9"))["session_id"] == "s9"


@pytest.mark.parametrize(
    ("rules", "workload"),
    [
        (("tag:workload:",), "router"),
        (("metadata:workload_id",), "meta"),
        (("trace_name",), "support"),
        (("name",), "chat"),
        (("prompt_name", "environment"), "production"),
        (("tag:team:", "metadata:nothing", "model"), "gpt-4o-mini"),
        (("tag:team:",), None),
    ],
)
def test_the_first_rule_that_gives_something_names_the_workload(rules: tuple[str, ...], workload: str | None) -> None:
    row = generation([USER], tags=["eu", "workload:router"], metadata={"workload_id": "meta"})
    assert workload_of(row, rules) == workload


def test_an_export_in_snake_case_is_read_too() -> None:
    export = LangfuseExport()
    assert isinstance(export, Format)
    row = {
        "id": "o1",
        "trace_id": "t1",
        "start_time": "2026-11-22T02:01:38.604Z",
        "end_time": "2026-11-22T02:01:40Z",
        "type": "GENERATION",
        "name": "chat",
        "input": [USER],
        "output": {"role": "assistant", "content": "yes"},
        "provided_model_name": "gpt-4o",
        "model_parameters": {"seed": 1},
        "usage_details": {"input": 1, "output": 2},
        "total_cost": 0.5,
        "session_id": "s1",
        "scores": [{"name": "user-feedback", "value": 1}],
    }
    assert export.recognises(row)
    (record,) = export.records(row)
    assert record["request"] == {"messages": [USER], "model": "gpt-4o", "seed": 1}
    assert (record["cost_usd"], record["session_id"], record["feedback"]) == (0.5, "s1", {"score": 1.0})


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"usageDetails": {"input": 1e300, "output": 2}}, "response.usage.prompt_tokens"),
        ({"usageDetails": {"input": 2**70, "output": 2}}, "response.usage.prompt_tokens"),
        ({"usageDetails": {"input": -5, "output": 2}}, "response.usage.prompt_tokens"),
        ({"totalCost": 1e308}, "cost_usd"),
        ({"latency": 1e307}, "latency_ms"),
    ],
)
def test_a_number_that_cannot_be_right_is_refused_by_its_name(more: Json, where: str) -> None:
    (found,) = read_line(json.dumps({**generation([USER]), **more}).encode(), LangfuseExport(), **LIMITS)
    assert isinstance(found, Reject)
    assert (found.reason, where in found.detail) == (RejectReason.OUT_OF_RANGE, True), found.detail


@pytest.mark.parametrize(
    "value", [[], "x", {"messages": [USER]}, {"request": {}, "response": {}}, {"id": "o1", "type": "function"}]
)
def test_other_formats_are_not_mistaken_for_langfuse(value: Any) -> None:
    assert not LangfuseExport().recognises(value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
message_like = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("role", "content", "parts", "tool_calls", "function_call", "finish_reason"), anything)
)


some_fields = st.sampled_from(("metadata", "modelParameters", "usageDetails", "tags", "latency", "totalCost", "sessionId"))
messages_like = st.lists(message_like, max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(anything, messages_like, st.fixed_dictionaries({"messages": messages_like})),
    st.one_of(anything, message_like, messages_like),
    st.dictionaries(some_fields, anything),
)
def test_whatever_an_observation_holds_it_is_a_record_or_a_reason(asked: Any, said: Any, more: Json) -> None:
    try:
        record = record_of({**generation(json.dumps(asked), json.dumps(said)), **more})
    except FormatError as error:
        assert error.detail
        return
    parse_record(json.dumps(record).encode(), max_bytes=10**6, received_at=time.time())
