"""Profiles: what a workload is, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core.datasets import WorkloadProfile, profile_workload
from flywheel_assets.core.rows import WorkloadType
from tests.core.datasets.workbench import Workbench, call, log_line, tool

TEXT = {"role": "assistant", "content": "Sunny."}


def profile(workbench: Workbench, lines: list[dict[str, Any]], **refused: int) -> WorkloadProfile:
    workbench.records(lines)
    return profile_workload(workbench.path("records"), refused=refused)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def test_one_record_that_offers_tools_makes_a_tool_calling_workload(workbench: Workbench) -> None:
    lines = [log_line(n, tools=None, answer=TEXT) for n in range(9)] + [log_line(10)]
    result = profile(workbench, lines)
    assert (result.type, result.supported, result.reason) == ("tool_calling", True, None)
    assert (result.call_records, result.no_call_records, result.text_records) == (1, 0, 9)


def test_without_tools_a_workload_is_generic(workbench: Workbench) -> None:
    assert profile(workbench, [log_line(n, tools=None, answer=TEXT) for n in range(3)]).type == "generic"


JSON = {"role": "assistant", "content": '{"city": "Bern", "rain": false}'}


def test_answers_that_are_json_make_a_structured_workload(workbench: Workbench) -> None:
    result = profile(
        workbench, [log_line(n, tools=None, answer=JSON) for n in range(19)] + [log_line(99, tools=None, answer=TEXT)]
    )
    assert (result.type, result.structured_records, result.text_records) == ("structured", 19, 20)


def test_more_than_an_odd_answer_in_text_makes_it_generic(workbench: Workbench) -> None:
    lines = [log_line(n, tools=None, answer=JSON if n else TEXT) for n in range(19)]
    assert profile(workbench, lines).type == "generic"


@pytest.mark.parametrize("asked", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a"}}])
def test_a_response_format_asks_for_json_whatever_was_answered(workbench: Workbench, asked: dict[str, Any]) -> None:
    lines = [log_line(n, tools=None, answer=TEXT, response_format=asked) for n in range(3)]
    assert profile(workbench, lines).type == "structured"


@pytest.mark.parametrize("content", ["42", '"yes"', "null", '{"a": ', '```json\n{"a": 1}\n```', 'Here: {"a": 1}', "[later]"])
def test_labels_and_json_inside_text_are_not_structured(workbench: Workbench, content: str) -> None:
    answer = {"role": "assistant", "content": content}
    lines = [log_line(n, tools=None, answer=answer, response_format={"type": "text"}) for n in range(3)]
    assert profile(workbench, lines).type == "generic"


def test_tools_come_before_json(workbench: Workbench) -> None:
    result = profile(workbench, [log_line(n, answer=JSON) for n in range(3)])
    assert (result.type, result.structured_records) == ("tool_calling", 3)


def test_a_type_that_is_set_overrules_what_the_records_tell_but_not_what_they_cannot_be(workbench: Workbench) -> None:
    workbench.records([log_line(n, tools=None, answer=JSON) for n in range(3)])
    records = workbench.path("records")
    assert profile_workload(records, workload_type=WorkloadType.GENERIC).type == "generic"
    assert profile_workload(records, workload_type=WorkloadType.GENERIC, refused={"not_chat": 9}).type == "unsupported"


@pytest.mark.parametrize(
    ("part", "words"),
    [(IMAGE, "3 with images"), (AUDIO, "3 with audio"), ({"type": "file", "file": {}}, "3 with file content")],
)
def test_what_a_text_model_cannot_take_is_unsupported_with_the_reason(
    workbench: Workbench, part: dict[str, Any], words: str
) -> None:
    result = profile(workbench, [log_line(n, messages=user(part, {"type": "text", "text": str(n)})) for n in range(3)])
    assert (result.type, result.supported) == ("unsupported", False)
    assert result.reason is not None and words in result.reason and "workload_id" in result.reason


def test_a_spoken_answer_is_unsupported(workbench: Workbench) -> None:
    answer = {"role": "assistant", "content": None, "audio": {"id": "a", "transcript": "Sunny."}}
    assert profile(workbench, [log_line(1, answer=answer)]).unsupported == {"audio": 1}
    assert profile(workbench, [log_line(2, modalities=["text", "audio"])]).type == "unsupported"


def test_traffic_that_is_not_chat_is_unsupported(workbench: Workbench) -> None:
    lines = [{**log_line(n), "request": {"model": "e", "input": "text"}} for n in range(4)]
    result = profile(workbench, lines)
    assert result.type == "unsupported"
    assert result.reason is not None and "4 not chat completions" in result.reason


def test_traffic_the_store_refused_as_not_chat_counts_too(workbench: Workbench) -> None:
    result = profile(workbench, [log_line(1)], not_chat=30, bad_timestamp=5)
    assert (result.type, result.unsupported) == ("unsupported", {"not_chat": 30})


def test_a_stray_image_in_much_text_does_not_condemn_the_workload(workbench: Workbench) -> None:
    result = profile(workbench, [log_line(n) for n in range(120)] + [log_line(200, messages=user(IMAGE))])
    assert (result.type, result.unsupported) == ("tool_calling", {"image": 1})


def test_the_inventory_counts_offers_and_calls(workbench: Workbench) -> None:
    tools = [tool("get_weather"), tool("get_time")]
    both = call("get_weather")
    both["tool_calls"] = both["tool_calls"] + call("get_time")["tool_calls"]
    lines = [log_line(1, tools=tools), log_line(2, tools=tools, answer=both), log_line(3, answer=TEXT)]
    result = profile(workbench, [*lines, log_line(1, id="again", tools=tools)])
    assert {t.name: (t.offered, t.calls) for t in result.tools} == {"get_weather": (3, 2), "get_time": (2, 1)}
    assert (result.distinct_tools, result.call_records, result.no_call_records) == (2, 2, 1)


def test_sources_teachers_lengths_and_times_are_reported(workbench: Workbench) -> None:
    conversation = [{"role": "user", "content": "Hi"}, TEXT, {"role": "user", "content": "And tomorrow?"}]
    result = profile(workbench, [log_line(1), log_line(2, source="import", messages=conversation)])
    assert result.sources == {"import": 1, "traffic": 1}
    assert result.teachers == {"big-2026": 2}
    assert (result.first, result.last, result.multi_turn_records) == (1001.0, 1002.0, 1)
    assert 0 < result.requests.p50 <= result.requests.p95
    assert result.to_json()["tools"][0]["name"] == "get_weather"


def test_tokens_are_counted_by_teacher_where_the_server_reported_both(workbench: Workbench) -> None:
    reported = [
        {"prompt_tokens": 10, "completion_tokens": 2},
        {"prompt_tokens": 30, "completion_tokens": 4},
        {"prompt_tokens": 10},
        {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 5}},
        # Refused at the door, each of them.
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 10**18, "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        "many",
        None,
    ]
    lines = []
    for n, usage in enumerate(reported):
        line = log_line(n, tools=None, answer=TEXT)
        line["response"] |= {"usage": usage, "model": "big-model"}
        lines.append(line)
    result = profile(workbench, lines)
    assert result.records == 5
    assert result.usage == {"big-model": {"records": 2, "prompt_tokens": 40, "completion_tokens": 6, "cached_tokens": 0}}


def test_cached_tokens_are_counted_as_a_part_of_the_prompt(workbench: Workbench) -> None:
    lines = []
    for n, cached in enumerate((1024, None, 0)):
        line = log_line(n, tools=None, answer=TEXT)
        details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
        line["response"]["usage"] = {"prompt_tokens": 1200, "completion_tokens": 30, **details}
        lines.append(line)
    assert profile(workbench, lines).usage["big-2026"] == {
        "records": 3,
        "prompt_tokens": 3600,
        "completion_tokens": 90,
        "cached_tokens": 1024,
    }


def test_logged_latency_is_of_the_records_that_may_be_examined_on(workbench: Workbench) -> None:
    lines = [log_line(n, latency_ms=100.0 * (n + 1)) for n in range(20)]
    lines += [log_line(100 + n, latency_ms=1.0, source="imported") for n in range(20)] + [log_line(200)]
    assert profile(workbench, lines).latency_ms == {"p50": 1050.0, "p95": 1905.0, "records": 20}


def test_where_no_latency_was_logged_there_is_none(workbench: Workbench) -> None:
    assert profile(workbench, [log_line(1)]).latency_ms == {"p50": None, "p95": None, "records": 0}


def test_what_is_imported_to_train_on_is_counted_apart_from_what_is_examined_on(workbench: Workbench) -> None:
    lines = [log_line(n) for n in range(6)]
    lines += [log_line(10 + n, tools=[tool("bought")], answer=call("bought"), source="xlam") for n in range(3)]
    workbench.records(lines)
    folder = workbench.path("records")
    found = profile_workload(folder)
    assert (found.call_records, found.examinable.call_records) == (9, 6)
    assert [use.name for use in found.examinable.tools] == ["get_weather"] and found.distinct_tools == 2
    assert sum(found.request_histogram.values()) == 9 and sum(found.examinable.request_histogram.values()) == 6
    everything = profile_workload(folder, train_only=())
    assert everything.examinable.call_records == 9 and everything.examinable.tools == everything.tools
