"""The promises of the log schema: what is a record, why a line is none, and what two equal records share."""

import json
from copy import deepcopy

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flywheel_assets.core.records import Record, Reject, RejectReason, parse_record

NOW = 1_800_000_000.0
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
LINE = {
    "timestamp": 1_700_000_000,
    "workload_id": "router",
    "client_id": "app",
    "request": {"model": "big", "messages": [{"role": "user", "content": "Weather in Oslo?"}], "tools": [TOOL]},
    "response": {"model": "big", "choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}}]},
}


def parse(content, **options):
    line = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_record(line, **{"max_bytes": 100_000, "received_at": NOW, **options})


def changed(path, value):
    """LINE with the value at a path of keys and positions replaced; `...` takes the key out."""
    content = deepcopy(LINE)
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


MESSAGES = ("request", "messages")
ANSWER = ("response", "choices", 0, "message")
ANSWER_ARGUMENTS = (*ANSWER, "tool_calls", 0, "function", "arguments")


def history(message):
    return changed(MESSAGES, [{"role": "user", "content": "hi"}, message])


def test_a_good_line_is_a_record():
    record = parse({**LINE, "id": "r1", "session_id": "s1"})
    assert isinstance(record, Record)
    assert (record.id, record.workload, record.workload_id) == ("r1", "router", "router")
    assert (record.timestamp, record.session_id, record.source) == (1_700_000_000.0, "s1", "traffic")
    assert json.loads(record.body) == {**LINE, "id": "r1", "session_id": "s1", "source": "traffic"}
    assert len(record.content_hash) == 16


REFUSED = [
    (b"{not json", "not_json", "character"),
    (b'{"a": "\\ud800"}', "not_json", "surrogate"),
    (b'{"timestamp": NaN}', "not_json", ""),
    (b'{"timestamp": 1e999}', "not_json", "infinity"),
    (b'{"a": "\xff"}', "not_utf8", "byte 7"),
    (b"[1]", "not_an_object", "a list"),
    (b'"text"', "not_an_object", "'text'"),
    (b"null", "not_an_object", "null"),
    (b"[" * 2000, "too_deep", ""),
    (orjson.dumps({**LINE, "extra": None}).replace(b"null}", b"[" * 400 + b"]" * 400 + b"}"), "too_deep", ""),
    (changed(("workload_id",), ...), "missing_field", "workload_id"),
    (changed(("client_id",), ...), "missing_field", "client_id"),
    (changed(("client_id",), ""), "missing_field", "client_id"),
    (changed(("timestamp",), ...), "missing_field", "timestamp"),
    (changed(("request",), ...), "missing_field", "request"),
    (changed(("response",), None), "missing_field", "response"),
    (changed(MESSAGES, ...), "missing_field", "request.messages"),
    (changed((*MESSAGES, 0, "role"), ...), "missing_field", "request.messages[0].role"),
    (changed((*MESSAGES, 0, "content"), ...), "missing_field", "request.messages[0].content"),
    (changed((*MESSAGES, 0, "content"), None), "missing_field", "request.messages[0].content"),
    (changed(("response", "choices"), ...), "missing_field", "response.choices"),
    (changed(ANSWER, ...), "missing_field", "response.choices[0].message"),
    (changed((*ANSWER, "role"), ...), "missing_field", "role"),
    (changed(("response", "choices"), [{"delta": {"content": "a"}}]), "missing_field", "streamed"),
    (changed(("workload_id",), 7), "bad_workload_id", "int"),
    (changed(("workload_id",), ""), "bad_workload_id", "empty"),
    (changed(("workload_id",), "???"), "bad_workload_id", "slug"),
    (changed(("timestamp",), 1_700_000_000_000), "bad_timestamp", "milliseconds"),
    (changed(("timestamp",), True), "bad_timestamp", "true"),
    (changed(("timestamp",), -1), "bad_timestamp", "1970"),
    (changed(("timestamp",), "yesterday"), "bad_timestamp", "ISO 8601"),
    (changed(("timestamp",), "1700000000"), "bad_timestamp", "number"),
    (changed(("timestamp",), "0001-01-01T00:00:00+10:00"), "bad_timestamp", ""),
    (changed(("timestamp",), NOW + 3 * 86_400), "bad_timestamp", "future"),
    (changed(("timestamp",), []), "bad_timestamp", "a list"),
    (changed(("request",), {"model": "m", "prompt": "Once"}), "not_chat", "`prompt`"),
    (changed(("request",), {"model": "m", "input": ["a"]}), "not_chat", "`input`"),
    ({**changed(("request",), {}), "response": {"object": "embedding"}}, "not_chat", "embedding"),
    (changed(("request",), "text"), "bad_field_type", "request"),
    (changed(MESSAGES, "hi"), "bad_field_type", "request.messages"),
    (changed((*MESSAGES, 0), "hi"), "bad_field_type", "request.messages[0]"),
    (changed((*MESSAGES, 0, "content"), 7), "bad_field_type", "content"),
    (changed(("request", "model"), 7), "bad_field_type", "request.model"),
    (changed(("request", "tool_choice"), 7), "bad_field_type", "tool_choice"),
    (changed(("request", "response_format"), "json"), "bad_field_type", "response_format"),
    (changed(("response",), []), "bad_field_type", "response"),
    (changed(("response", "choices"), {}), "bad_field_type", "response.choices"),
    (changed(("response", "choices", 0), "x"), "bad_field_type", "choices[0]"),
    (changed(ANSWER, "x"), "bad_field_type", "message"),
    (changed(("client_id",), 7), "bad_field_type", "client_id"),
    ({**LINE, "id": {}}, "bad_field_type", "id"),
    ({**LINE, "id": True}, "bad_field_type", "id"),
    ({**LINE, "id": "x" * 257}, "bad_field_type", "257"),
    ({**LINE, "session_id": []}, "bad_field_type", "session_id"),
    ({**LINE, "source": 1.5}, "bad_field_type", "source"),
    ({**LINE, "latency_ms": "12"}, "bad_field_type", "latency_ms"),
    ({**LINE, "latency_ms": -1}, "out_of_range", "latency_ms must be a number from 0 to 604,800,000"),
    ({**LINE, "latency_ms": 1e300}, "out_of_range", "latency_ms"),
    ({**LINE, "cost_usd": -0.01}, "out_of_range", "cost_usd"),
    ({**LINE, "cost_usd": 1e308}, "out_of_range", "cost_usd must be a number from 0 to 10,000, found 1e+308"),
    ({**LINE, "cost_usd": 2**60}, "out_of_range", "cost_usd"),
    ({**LINE, "cost_usd": "0.1"}, "bad_field_type", "cost_usd"),
    ({**LINE, "feedback": {"score": 1e7}}, "out_of_range", "feedback.score must be a number from -1,000,000 to 1,000,000"),
    ({**LINE, "feedback": {"score": -1e300}}, "out_of_range", "feedback.score"),
    ({**LINE, "feedback": {"score": True}}, "bad_field_type", "feedback.score"),
    (changed(("response", "usage"), {"prompt_tokens": -1}), "out_of_range", "response.usage.prompt_tokens"),
    (changed(("response", "usage"), {"completion_tokens": 1e300}), "out_of_range", "usage.completion_tokens"),
    (changed(("response", "usage"), {"total_tokens": 10**9}), "out_of_range", "from 0 to 100,000,000"),
    (changed(("response", "usage"), {"prompt_tokens": "12"}), "bad_field_type", "usage.prompt_tokens"),
    (changed(("response", "usage"), {"prompt_tokens": True}), "bad_field_type", "usage.prompt_tokens"),
    (changed(("response", "usage"), {"prompt_tokens": 1.5}), "bad_field_type", "a whole number"),
    (changed(("response", "usage"), [12, 3]), "bad_field_type", "response.usage"),
    (
        changed(("response", "usage"), {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}}),
        "out_of_range",
        "response.usage.prompt_tokens_details.cached_tokens",
    ),
    ({**LINE, "cost_usd": True}, "bad_field_type", "cost_usd"),
    ({**LINE, "feedback": 1}, "bad_field_type", "feedback"),
    ({**LINE, "feedback": {"score": "good"}}, "bad_field_type", "feedback.score"),
    ({**LINE, "feedback": {"correction": 3}}, "bad_field_type", "feedback.correction"),
    (changed(MESSAGES, []), "empty_messages", ""),
    (changed(("response", "choices"), []), "no_choices", ""),
    (changed(("response",), {"error": {"message": "overloaded"}}), "error_response", ""),
    (changed((*MESSAGES, 0, "role"), "robot"), "unknown_role", "'robot'"),
    (changed((*MESSAGES, 0, "role"), 3), "unknown_role", "3"),
    (changed((*ANSWER, "role"), "user"), "unknown_role", "assistant"),
    (changed((*MESSAGES, 0, "content"), ["a"]), "malformed_content", "content[0]"),
    (changed((*MESSAGES, 0, "content"), [{"text": "a"}]), "malformed_content", "type"),
    (changed((*MESSAGES, 0, "content"), [{"type": "text", "text": 1}]), "malformed_content", "text"),
    (changed((*MESSAGES, 0, "content"), []), "empty_message", ""),
    (changed((*ANSWER, "tool_calls"), ...), "empty_message", ""),
    (changed((*ANSWER, "tool_calls"), []), "empty_message", ""),
    (history({"role": "assistant", "content": None}), "empty_message", "messages[1]"),
    (changed(("request", "functions"), [{"name": "f"}]), "legacy_functions", "tools"),
    (changed(ANSWER, {"role": "assistant", "content": None, "function_call": {"name": "f"}}), "legacy_functions", ""),
    (history({"role": "function", "name": "f", "content": "1"}), "legacy_functions", ""),
    (changed(("request", "tools"), {}), "malformed_tools", "list"),
    (changed(("request", "tools"), ["f"]), "malformed_tools", "tools[0]"),
    (changed(("request", "tools"), [{"name": "f", "parameters": {}}]), "malformed_tools", "type"),
    (changed(("request", "tools"), [{"type": "web_search"}]), "malformed_tools", "'web_search'"),
    (changed(("request", "tools"), [{"type": "function"}]), "malformed_tools", "function"),
    (changed(("request", "tools"), [{"type": "function", "function": {"name": ""}}]), "malformed_tools", "name"),
    (changed(("request", "tools", 0, "function", "parameters"), "x"), "malformed_tools", "parameters"),
    (changed((*ANSWER, "tool_calls"), "call"), "malformed_tool_calls", "list"),
    (changed((*ANSWER, "tool_calls"), [{"type": "custom", "custom": {}}]), "malformed_tool_calls", "[0]"),
    (changed((*ANSWER, "tool_calls", 0, "function", "name"), None), "malformed_tool_calls", "[0]"),
    (history({"role": "user", "content": "x", "tool_calls": [CALL]}), "malformed_tool_calls", "user"),
    (changed(ANSWER_ARGUMENTS, "{city: Oslo}"), "malformed_tool_arguments", "not JSON"),
    (changed(ANSWER_ARGUMENTS, ""), "malformed_tool_arguments", ""),
    (changed(ANSWER_ARGUMENTS, "[1]"), "malformed_tool_arguments", "a list"),
    (changed(ANSWER_ARGUMENTS, '"{}"'), "malformed_tool_arguments", "'{}'"),
    (changed(ANSWER_ARGUMENTS, None), "malformed_tool_arguments", "null"),
    (changed(ANSWER_ARGUMENTS, '{"a": NaN}'), "malformed_tool_arguments", ""),
    (
        history({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        "malformed_tool_arguments",
        "request.messages[1]",
    ),
]


@pytest.mark.parametrize(("content", "reason", "detail"), REFUSED, ids=[f"{i}-{r[1]}" for i, r in enumerate(REFUSED)])
def test_a_bad_line_is_refused_by_name_and_the_detail_says_where(content, reason, detail):
    reject = parse(content)
    assert isinstance(reject, Reject)
    assert (str(reject.reason), detail in reject.detail) == (reason, True), reject


def test_every_reason_is_shown_by_a_test():
    # Those of traces and of other formats: tests/core/formats shows them.
    elsewhere = {"oversize", "unfinished", "truncated", "no_answer", "failed_call"}
    assert {reason for _, reason, _ in REFUSED} | elsewhere == {str(reason) for reason in RejectReason}


def test_an_oversize_line_is_refused_with_its_size():
    reject = parse(LINE, max_bytes=50)
    assert reject.reason is RejectReason.OVERSIZE
    assert "50 are allowed" in reject.detail


ACCEPTED = [
    history({"role": "assistant", "tool_calls": [CALL]}),
    history({"role": "tool", "tool_call_id": "c1", "content": "12 degrees"}),
    changed((*MESSAGES, 0), {"role": "developer", "content": "Be brief."}),
    changed((*MESSAGES, 0, "content"), [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]),
    changed((*MESSAGES, 0, "content"), [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
    changed(ANSWER, {"role": "assistant", "content": "No function fits."}),
    changed(ANSWER, {"role": "assistant", "content": ""}),
    changed(ANSWER, {"role": "assistant", "content": None, "refusal": "I can't."}),
    changed(("request", "tools"), None),
    changed(("request", "tools"), ...),
    changed(("response", "choices"), [LINE["response"]["choices"][0], {"message": {"role": "robot"}}]),
    {**LINE, "feedback": {"score": 1, "correction": "no"}, "latency_ms": 12.5, "cost_usd": 0, "session_id": None},
    {**LINE, "feedback": None, "latency_ms": None},
]


@pytest.mark.parametrize("content", ACCEPTED, ids=range(len(ACCEPTED)))
def test_a_well_formed_record_is_kept_whether_or_not_its_kind_is_supported(content):
    assert isinstance(parse(content), Record)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (1_700_000_000.25, 1_700_000_000.25),
        (0, 0.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-14 22:13:20.5", 1_700_000_000.5),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14", 1_699_920_000.0),
        (NOW + 3600, NOW + 3600),
    ],
)
def test_a_timestamp_is_epoch_seconds_whatever_it_was_written_as(written, seconds):
    assert parse({**LINE, "timestamp": written}).timestamp == seconds


def test_a_naive_timestamp_means_utc_wherever_the_machine_stands(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert parse({**LINE, "timestamp": "2023-11-14T22:13:20"}).timestamp == 1_700_000_000.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_same_content_has_the_same_id_and_hash_however_it_was_written():
    one, other = (
        parse(json.dumps(LINE).encode()),
        parse(json.dumps(dict(reversed(LINE.items())), indent=1).encode() + b"\r\n"),
    )
    iso = parse({**LINE, "timestamp": "2023-11-14T22:13:20Z"})
    assert one == other == iso
    assert one.id == one.content_hash.hex()


def test_a_changed_content_under_the_same_id_has_another_hash():
    one, other = parse({**LINE, "id": "r1"}), parse({**LINE, "id": "r1", "latency_ms": 3})
    assert one.id == other.id and one.content_hash != other.content_hash


def test_a_numeric_id_is_the_same_as_its_text():
    assert parse({**LINE, "id": 7}) == parse({**LINE, "id": "7"})


def test_arguments_logged_as_objects_become_json_text_everywhere():
    logged = {"function": {"name": "get_weather", "arguments": {"city": "Osl\u00f8", "days": 2}}}
    content = history({"role": "assistant", "tool_calls": [logged]})
    content["response"] = changed(ANSWER_ARGUMENTS, {"city": "Oslo"})["response"]
    body = json.loads(parse(content).body)
    assert json.loads(body["request"]["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {
        "city": "Osl\u00f8",
        "days": 2,
    }
    assert body["response"]["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"city":"Oslo"}'


def test_unknown_fields_are_kept_at_every_level():
    content = {**deepcopy(LINE), "team": "search"}
    content["request"]["seed"] = 5
    content["response"]["choices"][0]["message"]["reasoning"] = "..."
    assert json.loads(parse(content).body) == {**content, "source": "traffic", "id": parse(content).id}


def test_the_defaults_fill_in_and_never_overrule_the_line():
    bare = changed(("workload_id",), ...)
    filled = parse(bare, default_workload="My App", source="import")
    assert (filled.workload_id, filled.source) == ("My App", "import")
    assert filled.workload.startswith("my-app-")
    assert json.loads(filled.body)["workload_id"] == "My App"
    kept = parse({**LINE, "source": "canary"}, default_workload="other", source="import")
    assert (kept.workload, kept.source) == ("router", "canary")


def test_a_body_parses_to_the_record_it_came_from():
    content = changed(ANSWER_ARGUMENTS, {"city": "Oslo"})
    for extra in ({}, {"id": 7, "session_id": 3, "source": "import", "timestamp": "2023-11-14"}):
        record = parse({**content, **extra})
        assert parse(record.body) == record


def test_a_reject_names_the_workload_so_that_unsupported_traffic_can_be_found():
    assert parse(changed(("request",), {"prompt": "Once"})).workload == "router"
    assert parse(b"{").workload is None


def test_an_excerpt_shows_the_start_of_the_line_and_no_more():
    reject = parse(("[" + "\u00e9" * 5000).encode())
    assert len(reject.excerpt) == 160 and reject.excerpt.startswith("[\u00e9")


def test_a_bad_line_is_known_again_by_its_hash():
    assert parse(b"{bad").line_hash == parse(b"{bad").line_hash != parse(b"{worse").line_hash


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
places = st.sampled_from(
    [
        ("timestamp",),
        ("workload_id",),
        ("request",),
        ("response",),
        ("feedback",),
        ("id",),
        MESSAGES,
        (*MESSAGES, 0),
        (*MESSAGES, 0, "content"),
        ("request", "tools"),
        ("request", "tools", 0, "function"),
        ANSWER,
        (*ANSWER, "tool_calls"),
        (*ANSWER, "tool_calls", 0),
        (*ANSWER, "tool_calls", 0, "function"),
        ANSWER_ARGUMENTS,
    ]
)


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b"{" * 1100)
def test_no_bytes_whatever_make_parsing_raise(line):
    assert isinstance(parse(line), Record | Reject)


@given(places, json_values)
def test_no_value_in_any_place_makes_parsing_raise(path, value):
    parsed = parse(orjson.dumps(changed(path, value), option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _fits(value) else b"")
    assert isinstance(parsed, Record | Reject)
    if isinstance(parsed, Record):
        assert parse(parsed.body) == parsed


def _fits(value):
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def test_arguments_that_nest_too_deeply_are_refused_and_do_not_raise():
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    line = orjson.dumps(changed(ANSWER_ARGUMENTS, "@")).replace(b'"@"', deep)
    assert parse(line).reason is RejectReason.TOO_DEEP
