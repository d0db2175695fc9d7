"""What becomes of a row of each format, and why one is refused."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest

from flywheel_assets.core.formats import BUILT_IN, FormatError, format_named, read_line
from flywheel_assets.core.records import Record, Reject
from tests.core.formats.rows import (
    ASKED,
    CALL,
    HERMES,
    OPENAI,
    PROMPT_COMPLETION,
    SHAREGPT,
    STOCK,
    STRUCTURED,
    TOOL,
    TRACER,
    VALID,
    XLAM,
    Row,
    answer_of,
    calls,
)

SYSTEM = {"role": "system", "content": "You answer for a shop."}
USER = {"role": "user", "content": ASKED}
LEGACY_CALL = {"name": "stock", "arguments": "{}"}
LIMITS: dict[str, Any] = {"max_bytes": 100_000, "source": None, "received_at": time.time()}


def made(name: str, row: Row) -> Row:
    """The one record of a row."""
    (record,) = format_named(name).records(copy.deepcopy(row))
    return record


def read(name: str, row: Row, workload: str | None = "shop") -> Record | Reject:
    """The one record or reject of a row's line."""
    (one,) = read_line(json.dumps(row).encode(), format_named(name), default_workload=workload, **LIMITS)
    return one


@pytest.mark.parametrize("name", VALID)
def test_every_valid_row_is_recognised_by_its_own_format_alone_and_becomes_a_record(name: str) -> None:
    for row in VALID[name]:
        assert [form.name for form in BUILT_IN if form.recognises(row)] == [name]
        before = copy.deepcopy(row)
        assert isinstance(read(name, row), Record)
        assert row == before


@pytest.mark.parametrize("name", VALID)
def test_what_a_row_does_not_say_is_filled_in(name: str) -> None:
    row = {key: value for key, value in VALID[name][0].items() if key not in ("agent", "timestamp", "run_id")}
    record = read(name, row)
    assert isinstance(record, Record)
    body = json.loads(record.body)
    assert (record.workload, record.timestamp, record.source, record.session_id) == ("shop", 0.0, name, None)
    assert body["client_id"] == "import"
    renamed = read_line(
        json.dumps(row).encode(), format_named(name), default_workload="shop", **{**LIMITS, "source": "mine"}
    )[0]
    assert isinstance(renamed, Record)
    assert renamed.source == "mine"


@pytest.mark.parametrize("name", VALID)
def test_the_id_is_that_of_the_row_however_it_is_written(name: str) -> None:
    row = VALID[name][0]
    spread = json.dumps(dict(reversed(row.items())), indent=2).encode()
    (again,) = read_line(spread, format_named(name), default_workload="shop", **LIMITS)
    first, changed = read(name, row), read(name, {**row, "note": "another row"})
    assert isinstance(first, Record) and isinstance(again, Record) and isinstance(changed, Record)
    assert first == again
    assert first.id != changed.id


def test_openai_rows_keep_messages_tools_and_options() -> None:
    record = made("openai", OPENAI)
    assert record["request"] == {"messages": [SYSTEM, USER], "tools": [TOOL], "parallel_tool_calls": False}
    assert calls(answer_of(record)) == [CALL]


def test_openai_weight_says_which_turn_is_learnt_from_and_is_not_kept() -> None:
    def say(role: str, text: str, **more: Any) -> Row:
        return {"role": role, "content": text, **more}

    turns = [say("user", "a"), say("assistant", "b", weight=1), say("user", "c"), say("assistant", "d", weight=0)]
    record = made("openai", {"messages": turns})
    assert record["request"]["messages"] == [say("user", "a")]
    assert answer_of(record) == say("assistant", "b")
    with pytest.raises(FormatError, match="weight 0"):
        made("openai", {"messages": [say("user", "a"), say("assistant", "b", weight=0)]})


def test_a_conversation_of_several_turns_is_one_record_up_to_its_last_answer() -> None:
    record = made("sharegpt", SHAREGPT)
    system, user, call, result = record["request"]["messages"]
    assert (system, user) == (SYSTEM, USER)
    assert calls(call) == [CALL]
    assert result == {"role": "tool", "content": '{"pieces": 4}', "tool_call_id": call["tool_calls"][0]["id"]}
    assert answer_of(record) == {"role": "assistant", "content": "Yes, four pieces."}
    assert record["request"]["tools"] == [TOOL]


def test_a_conversation_that_does_not_end_with_the_assistant_ends_with_its_last_answer() -> None:
    asked_on = {**SHAREGPT, "conversations": [*SHAREGPT["conversations"], {"from": "human", "value": "Thanks"}]}
    assert made("sharegpt", asked_on) == made("sharegpt", SHAREGPT)
    cut = {**SHAREGPT, "conversations": SHAREGPT["conversations"][:3]}
    assert calls(answer_of(made("sharegpt", cut))) == [CALL]


def test_sharegpt_calls_in_a_row_are_one_answer_and_results_belong_to_them_in_order() -> None:
    other = {**CALL, "arguments": {"article": "B-1"}}
    turns = [
        {"from": "human", "value": "A-7 and B-1?"},
        {"from": "gpt", "value": "Looking."},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "function_call", "value": json.dumps([other])},
        {"from": "observation", "value": "4"},
        {"from": "observation", "value": "0"},
        {"from": "gpt", "value": "Four and none."},
    ]
    for tools in ([STOCK], [TOOL], json.dumps([TOOL]), [json.dumps(STOCK)]):
        record = made("sharegpt", {"conversations": turns, "tools": tools})
        assert record["request"]["tools"] == [TOOL]
        _, call, *results = record["request"]["messages"]
        assert (call["content"], calls(call)) == ("Looking.", [CALL, other])
        assert [result["tool_call_id"] for result in results] == [each["id"] for each in call["tool_calls"]]


def test_hermes_tags_become_tools_calls_and_results() -> None:
    record = made("hermes", HERMES)
    system, user, call, result = record["request"]["messages"]
    assert (system, user) == (SYSTEM, USER)
    assert (call["content"], calls(call)) == ("Let me look.", [CALL])
    assert result == {
        "role": "tool",
        "content": '{"pieces":4}',
        "tool_call_id": call["tool_calls"][0]["id"],
        "name": "stock_level",
    }
    assert record["request"]["tools"] == [TOOL]
    assert record["source_id"] == "7f3c"


def hermes(said: str, system: str = HERMES["conversations"][0]["value"]) -> Row:
    turns = [{"from": "system", "value": system}, {"from": "human", "value": ASKED}, {"from": "gpt", "value": said}]
    return {"conversations": turns}


@pytest.mark.parametrize(
    "said",
    [
        f"<tool_call>{json.dumps(CALL)}</tool_call><tool_call>\n{json.dumps(CALL)}\n</tool_call>",
        f"<tool_call>\n{json.dumps(CALL)}\n{json.dumps(CALL)}\n</tool_call>",
        f"<tool_call>{json.dumps([CALL, CALL])}</tool_call>",
        f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
    ],
    ids=["two tags", "two lines", "a list", "Python literals"],
)
def test_hermes_turns_may_call_several_tools(said: str) -> None:
    answer = answer_of(made("hermes", hermes(said)))
    assert (answer["content"], calls(answer)) == (None, [CALL, CALL])


@pytest.mark.parametrize(
    "said",
    [
        "<tool_call>\n{'name': 'stock_level', 'arguments': {\n</tool_call>",
        '<tool_call>{"name": "stock_level"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "stock_level", "arguments": {}}',
        '{"name": "stock_level", "arguments": {}}</tool_call>',
        "<tool_call></tool_call>",
        "<tool_call>stock_level(3)</tool_call>",
    ],
)
def test_hermes_malformed_calls_are_refused_by_name(said: str) -> None:
    refused = read("hermes", hermes(said))
    assert isinstance(refused, Reject)
    assert refused.reason == "malformed_tool_calls"


def test_hermes_prompts_that_are_all_about_tools_leave_no_system_turn() -> None:
    system = f"<tools>{json.dumps(TOOL)}\n{json.dumps({**STOCK, 'name': 'other'})}</tools>"
    record = made("hermes", hermes("Yes.", system))
    assert record["request"]["messages"] == [USER]
    assert [tool["function"]["name"] for tool in record["request"]["tools"]] == ["stock_level", "other"]
    after = made("hermes", hermes("Yes.", f"{system}\nBe brief."))
    assert after["request"]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_xlam_parameters_become_json_schema() -> None:
    record = made("xlam", XLAM)
    assert record["request"]["messages"] == [USER]
    assert calls(answer_of(record)) == [CALL]
    assert record["request"]["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "stock_level",
                "description": STOCK["description"],
                "parameters": {
                    "type": "object",
                    "properties": {
                        "article": {"type": "string", "description": "Article number."},
                        "store": {"type": "integer", "description": "Store number.", "default": 1},
                    },
                    "required": ["article"],
                },
            },
        }
    ]
    assert record["source_id"] == "12"


def test_xlam_lists_may_be_values_and_schemas_are_left_alone() -> None:
    record = made("xlam", {"query": ASKED, "tools": [STOCK], "answers": [CALL, CALL]})
    assert record["request"]["tools"] == [TOOL]
    assert calls(answer_of(record)) == [CALL, CALL]


def test_xlam_rows_without_calls_teach_that_none_is_right() -> None:
    record = read("xlam", {**XLAM, "answers": "[]"})
    assert isinstance(record, Record)
    assert answer_of(json.loads(record.body)) == {"role": "assistant", "content": ""}


def test_completions_are_calls_where_the_row_offers_tools_and_text_where_not() -> None:
    forms = [
        CALL,
        [CALL],
        json.dumps(CALL),
        {"tool_calls": [{"type": "function", "function": CALL}]},
        json.dumps({"tool_calls": [CALL]}),
        f"<tool_call>{json.dumps(CALL)}</tool_call>",
    ]
    for completion in forms:
        row = {**PROMPT_COMPLETION, "completion": completion}
        record = made("prompt-completion", row)
        assert record["request"] == {"messages": [USER], "tools": [TOOL]}
        assert calls(answer_of(record)) == [CALL]
        text = answer_of(made("prompt-completion", {"prompt": ASKED, "completion": completion}))
        assert "tool_calls" not in text and isinstance(text["content"], str)
    words = answer_of(made("prompt-completion", {**PROMPT_COMPLETION, "completion": "No, it is closed."}))
    assert words == {"role": "assistant", "content": "No, it is closed."}


def test_json_objects_are_prompts_and_answers_in_the_order_they_were_written() -> None:
    record = made("prompt-completion", {**STRUCTURED, "system": {"role": "extractor"}})
    system, user = record["request"]["messages"]
    assert system == {"role": "system", "content": '{"role":"extractor"}'}
    assert user["content"].startswith('{"entity":"invoice","context":{"country":"CH"}')
    assert answer_of(record)["content"] == '{"number":17,"total":40.5,"currency":"CHF"}'


def test_prompts_and_completions_may_be_messages() -> None:
    row = {"prompt": [SYSTEM, USER], "completion": [{"role": "assistant", "content": "Yes."}], "workload_id": "w"}
    record = made("prompt-completion", row)
    assert record["request"]["messages"] == [SYSTEM, USER]
    assert (answer_of(record)["content"], record["workload_id"]) == ("Yes.", "w")


def test_a_traced_call_names_its_workload_session_time_and_cost() -> None:
    record = read("workflow-tracer", TRACER, workload=None)
    assert isinstance(record, Record)
    body = json.loads(record.body)
    assert (record.workload, record.session_id, record.timestamp) == ("stock-agent", "run-5", 1772352000.0)
    assert (body["latency_ms"], body["cost_usd"]) == (1250.0, 0.004)
    assert (body["request"]["model"], body["response"]["model"]) == ("big-model", "big-model")
    assert body["request"]["messages"] == [SYSTEM, USER]
    assert calls(answer_of(body)) == [CALL]
    in_milliseconds = {**TRACER, "latency_ms": 40, "answer": {"in_stock": True}, "tool_calls": []}
    other = made("workflow-tracer", in_milliseconds)
    assert (other["latency_ms"], answer_of(other)["content"]) == (40.0, '{"in_stock":true}')


@pytest.mark.parametrize(
    ("name", "row", "reason", "detail"),
    [
        ("openai", {"messages": [USER]}, "no_answer", "no turn"),
        ("openai", {"messages": [{"role": "assistant", "content": "Hi"}]}, "empty_messages", "before"),
        ("openai", {"messages": [USER, {"role": "assistant", "content": " "}]}, "no_answer", "neither"),
        ("openai", {"messages": [USER, 3]}, "bad_field_type", "messages[1]"),
        ("openai", {**OPENAI, "tools": "[{"}, "malformed_tools", "not JSON"),
        ("openai", {**OPENAI, "tools": [3]}, "malformed_tools", "tools[0]"),
        ("openai", {"messages": [USER, {"role": "critic", "content": "x"}, *OPENAI["messages"][2:]]}, "unknown_role", ""),
        ("openai", {**OPENAI, "tools": None, "functions": [STOCK]}, "legacy_functions", "functions"),
        (
            "openai",
            {"messages": [USER, {"role": "assistant", "content": None, "function_call": LEGACY_CALL}], "functions": [STOCK]},
            "legacy_functions",
            "functions",
        ),
        ("sharegpt", {"conversations": [{"from": "moderator", "value": "x"}]}, "unknown_role", "conversations[0]"),
        ("sharegpt", {"conversations": [{"from": "human", "value": 3}]}, "bad_field_type", "conversations[0].value"),
        ("sharegpt", {**SHAREGPT, "conversations": [SHAREGPT["conversations"][0]]}, "no_answer", ""),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "f(1)"}]},
            "malformed_tool_calls",
            "conversations[1]",
        ),
        ("hermes", {**hermes("Yes.", "Use <tools>{broken</tools>")}, "malformed_tools", "<tools>"),
        ("xlam", {**XLAM, "query": " "}, "missing_field", "query"),
        ("xlam", {**XLAM, "answers": None}, "missing_field", "answers"),
        ("xlam", {**XLAM, "answers": "call it"}, "malformed_tool_calls", "answers"),
        ("xlam", {**XLAM, "tools": [{"name": "f", "parameters": {"a": 3}}]}, "malformed_tools", "parameters.a"),
        ("prompt-completion", {"prompt": "", "completion": "x"}, "empty_messages", "prompt"),
        ("prompt-completion", {"prompt": "x", "completion": ""}, "no_answer", ""),
        ("prompt-completion", {"prompt": "x"}, "missing_field", "completion"),
        ("workflow-tracer", {**TRACER, "success": False}, "failed_call", "failed"),
        ("workflow-tracer", {**TRACER, "error": "timed out after 30 s"}, "failed_call", "timed out after 30 s"),
        ("workflow-tracer", {**TRACER, "tool_calls": [], "answer": None}, "no_answer", ""),
        ("workflow-tracer", {**TRACER, "query": None}, "missing_field", "query"),
        ("workflow-tracer", {**TRACER, "time": "1 s"}, "bad_field_type", "time"),
        ("workflow-tracer", {**TRACER, "cost": -1}, "out_of_range", "cost_usd"),
        ("workflow-tracer", {**TRACER, "cost": 1e308}, "out_of_range", "cost_usd"),
        ("workflow-tracer", {**TRACER, "time": 1e307}, "out_of_range", "latency_ms"),
        ("workflow-tracer", {**TRACER, "time": -1}, "out_of_range", "latency_ms"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name_and_the_detail_says_where(
    name: str, row: Row, reason: str, detail: str
) -> None:
    refused = read(name, row)
    assert isinstance(refused, Reject)
    assert (str(refused.reason), detail in refused.detail) == (reason, True), refused
    assert refused.excerpt == json.dumps(row)[:160]


def test_a_record_larger_than_allowed_is_refused_though_its_row_was_not() -> None:
    line = json.dumps(XLAM).encode()
    (refused,) = read_line(line, format_named("xlam"), default_workload="w", **{**LIMITS, "max_bytes": len(line)})
    assert isinstance(refused, Reject) and refused.reason == "oversize"


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"{bad", "not_json"), (b"[1]", "not_an_object"), (b"\xff", "not_utf8"), (b'"x"' * 50_000, "oversize")],
)
def test_a_line_that_is_no_row_of_anything_is_refused_as_in_a_log(line: bytes, reason: str) -> None:
    (refused,) = read_line(line, format_named("xlam"), default_workload="w", **LIMITS)
    assert isinstance(refused, Reject) and refused.reason == reason
