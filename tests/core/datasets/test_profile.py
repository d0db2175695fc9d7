"""Profiles: what a workload is, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core.datasets import WorkloadProfile, profile_workload
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
