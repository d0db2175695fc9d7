from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel_assets.core.replay import UnusableAnswerError, greedy_request, read_completion
from flywheel_assets.core.rows import Answer, ToolCall
from flywheel_assets.core.usage import Usage

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "question"}


def replayed(request: dict[str, Any], **options: Any) -> dict[str, Any]:
    return greedy_request(request, **{"model": "small", "max_tokens": 64, **options})


def answer_in(message: Any) -> Answer:
    return read_completion(json.dumps({"choices": [{"message": message}]}).encode())[0]


def test_a_replay_is_greedy_however_the_teacher_sampled() -> None:
    logged = {"model": "teacher", "messages": [USER], "temperature": 0.9, "top_p": 0.5, "seed": 7, "n": 3, "logprobs": True}
    assert replayed(logged) == {"model": "small", "messages": [USER], "temperature": 0, "seed": 0, "max_tokens": 64}


def test_who_asked_and_how_it_travelled_is_not_repeated() -> None:
    logged = {"messages": [USER], "user": "u-1", "metadata": {"a": "b"}, "store": True, "stream": True, "stream_options": {}}
    assert set(replayed(logged)) == {"model", "messages", "temperature", "seed", "max_tokens"}


def test_what_was_asked_is_repeated_as_it_was_logged() -> None:
    logged = {
        "messages": [USER],
        "tools": [TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "stop": ["\n"],
        "max_completion_tokens": 5,
    }
    assert replayed(logged) == {**logged, "model": "small", "temperature": 0, "seed": 0}


def test_a_tool_choice_is_never_added() -> None:
    assert "tool_choice" not in replayed({"messages": [USER], "tools": [TOOL]})


@pytest.mark.parametrize("tools", [[], None])
def test_a_choice_among_no_tools_is_not_sent(tools: Any) -> None:
    logged = {"messages": [USER], "tools": tools, "tool_choice": "auto", "parallel_tool_calls": True}
    assert set(replayed(logged)) == {"model", "messages", "temperature", "seed", "max_tokens"}


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
def test_a_logged_bound_is_kept(bound: str) -> None:
    body = replayed({"messages": [USER], bound: 7})
    assert {name: body[name] for name in body if name.startswith("max")} == {bound: 7}


@pytest.mark.parametrize("leading", [[], ["system"], ["developer", "system"]])
def test_a_prefix_goes_behind_the_leading_instructions_and_before_the_rest(leading: list[str]) -> None:
    instructions = [{"role": role, "content": "be brief"} for role in leading]
    later = {"role": "system", "content": "a late reminder"}
    prefix = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "s"}]
    body = replayed({"messages": [*instructions, USER, later]}, prefix_messages=prefix)
    assert body["messages"] == [*instructions, *prefix, USER, later]


def test_a_replay_leaves_the_log_alone() -> None:
    logged = {"messages": [USER], "tools": []}
    replayed(logged, prefix_messages=[USER], extra={"lora": []})
    assert logged == {"messages": [USER], "tools": []}


def test_an_answer_with_its_tokens_is_read() -> None:
    content = {"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert read_completion(json.dumps(content).encode()) == (Answer("hi"), Usage(3, 1))


def test_a_server_that_counts_no_tokens_is_read_too() -> None:
    assert read_completion(b'{"choices": [{"message": {"content": "hi"}}], "usage": null}') == (Answer("hi"), Usage())


@pytest.mark.parametrize("usage", ["many", [1], {"prompt_tokens": 1e300, "completion_tokens": "3"}, 7])
def test_an_answer_is_not_lost_because_its_tokens_are_odd(usage: Any) -> None:
    content = {"choices": [{"message": {"content": "hi"}}], "usage": usage}
    assert read_completion(json.dumps(content).encode()) == (Answer("hi"), Usage())


def test_cached_tokens_are_read_with_the_answer() -> None:
    usage = {"prompt_tokens": 1200, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 1024}}
    content = {"choices": [{"message": {"content": "hi"}}], "usage": usage}
    assert read_completion(json.dumps(content).encode())[1] == Usage(1200, 30, 1024)


def test_malformed_arguments_are_kept_as_written() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": '}}
    assert answer_in({"content": "", "tool_calls": [call]}) == Answer("", (ToolCall("f", '{"a": '),))


def test_parsed_arguments_become_text_again() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    assert answer_in({"tool_calls": [call]}) == Answer(None, (ToolCall("f", '{"a": 1}'),))


def test_a_call_in_the_old_form_counts() -> None:
    assert answer_in({"function_call": {"name": "f", "arguments": "{}"}}) == Answer(None, (ToolCall("f", "{}"),))


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"null", b"[]", b'{"error": "x"}', b'{"choices": []}', b'{"choices": [{}]}']
)
def test_what_is_no_completion_is_called_so(content: bytes) -> None:
    with pytest.raises(UnusableAnswerError):
        read_completion(content)


@pytest.mark.parametrize(
    "message", [{"content": 5}, {"tool_calls": [{}]}, {"tool_calls": [{"function": {"name": None, "arguments": ""}}]}]
)
def test_a_message_that_is_no_answer_is_called_so(message: Any) -> None:
    with pytest.raises(UnusableAnswerError):
        answer_in(message)


@pytest.mark.parametrize(
    ("reason", "cut_off"),
    [
        ("stop", None),
        ("tool_calls", None),
        (None, None),
        (7, None),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
    ],
)
def test_an_answer_knows_whether_it_was_cut_off(reason: Any, cut_off: str | None) -> None:
    content = {"choices": [{"message": {"content": "It ships on"}, "finish_reason": reason}]}
    answer = read_completion(json.dumps(content).encode())[0]
    assert answer == Answer("It ships on", cut_off=cut_off)
    assert Answer.from_json(answer.to_json()) == answer
    # A finished answer reads and hashes as it did before this was recorded.
    assert ("cut_off" in answer.to_json()) is (cut_off is not None)


@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_without_arguments_is_one_of_an_empty_object(arguments: str | None) -> None:
    call = {"function": {"name": "ping", "arguments": arguments}}
    assert answer_in({"content": None, "tool_calls": [call]}) == Answer(None, (ToolCall("ping", "{}"),))
    assert answer_in({"tool_calls": [{"function": {"name": "ping"}}]}) == Answer(None, (ToolCall("ping", "{}"),))


def test_content_in_parts_and_refusals_are_text() -> None:
    parts = [{"type": "text", "text": "It ships"}, {"type": "output_text", "text": "on Monday."}]
    assert answer_in({"content": parts}) == Answer("It ships\non Monday.")
    assert answer_in({"content": None, "refusal": "I cannot say."}) == Answer("I cannot say.")
    with pytest.raises(UnusableAnswerError):
        answer_in({"content": [{"type": "image_url", "image_url": {"url": "x"}}]})
