from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.prefix import few_shot_prefix


def row(name: str, tool: str | None, *, turns: int = 1, text: str = "") -> dict[str, Any]:
    prompt: list[dict[str, Any]] = [{"role": "system", "content": "instructions"}]
    for turn in range(turns):
        if turn:
            prompt.append({"role": "assistant", "content": "go on"})
        prompt.append({"role": "user", "content": f"question {name} {turn} {text}"})
    if tool is None:
        completion = {"role": "assistant", "content": "I cannot."}
    else:
        call = {"id": "c", "type": "function", "function": {"name": tool, "arguments": '{"a":1}'}}
        completion = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"row_id": name, "prompt": prompt, "completion": [completion], "tools": "[]"}


def called(messages: Any) -> list[str]:
    return [call["function"]["name"] for message in messages for call in message.get("tool_calls", ())]


MOSTLY_CALLS = [row(f"call-{n}", f"tool-{n % 5}") for n in range(20)] + [row(f"none-{n}", None) for n in range(6)]


def test_of_two_shots_over_rows_that_mostly_call_both_call_different_tools() -> None:
    prefix = few_shot_prefix(MOSTLY_CALLS, shots=2, max_chars=6000, seed=0)
    assert len(prefix.row_ids) == 2 and len(set(called(prefix.messages))) == 2
    assert [message["role"] for message in prefix.messages] == ["user", "assistant", "user", "assistant"]


def test_enough_shots_show_a_refusal_in_proportion_and_first() -> None:
    prefix = few_shot_prefix(MOSTLY_CALLS, shots=5, max_chars=6000, seed=0)
    assert [name.split("-")[0] for name in prefix.row_ids] == ["none", "call", "call", "call", "call"]
    assert sorted(called(prefix.messages)) == sorted(set(called(prefix.messages)))


def test_rows_that_never_call_give_examples_that_never_call() -> None:
    prefix = few_shot_prefix([row(f"none-{n}", None) for n in range(5)], shots=2, max_chars=6000, seed=0)
    assert len(prefix.row_ids) == 2 and called(prefix.messages) == []


def test_one_tool_only_is_shown_twice() -> None:
    prefix = few_shot_prefix([row(f"r{n}", "only") for n in range(5)], shots=2, max_chars=6000, seed=0)
    assert called(prefix.messages) == ["only", "only"] and len(set(prefix.row_ids)) == 2


@settings(deadline=None)
@given(seed=st.integers(0, 5), shuffle=st.integers(0, 10))
def test_the_choice_depends_on_the_rows_and_the_seed_but_not_on_their_order(seed: int, shuffle: int) -> None:
    shuffled = random.Random(shuffle).sample(MOSTLY_CALLS, len(MOSTLY_CALLS))
    assert few_shot_prefix(shuffled, 4, 6000, seed) == few_shot_prefix(MOSTLY_CALLS, 4, 6000, seed)


def test_another_seed_chooses_other_rows() -> None:
    assert len({few_shot_prefix(MOSTLY_CALLS, 2, 6000, seed).row_ids for seed in range(5)}) > 1


@settings(deadline=None)
@given(shots=st.integers(1, 16), max_chars=st.integers(200, 2000), longest=st.integers(0, 500))
def test_the_bounds_are_kept(shots: int, max_chars: int, longest: int) -> None:
    rows = [row(f"r{n}", f"t{n}" if n % 3 else None, text="x" * (n * longest // 20)) for n in range(20)]
    prefix = few_shot_prefix(rows, shots, max_chars, 0)
    assert len(prefix.row_ids) <= shots
    assert sum(len(json.dumps(message)) for message in prefix.messages) <= max_chars


def test_a_row_too_long_to_show_gives_way_to_one_that_fits() -> None:
    rows = [row("long", "a", text="x" * 5000), row("short", "b")]
    assert few_shot_prefix(rows, 2, 1000, 0).row_ids == ("short",)


def test_short_conversations_are_shown_before_long_ones() -> None:
    rows = [row(f"long-{n}", f"t{n}", turns=3) for n in range(5)] + [row(f"short-{n}", f"u{n}") for n in range(2)]
    assert sorted(few_shot_prefix(rows, 2, 6000, 0).row_ids) == ["short-0", "short-1"]


def test_nothing_to_show_is_an_empty_prefix() -> None:
    prefix = few_shot_prefix([], 2, 6000, 0)
    assert prefix.messages == () and prefix.row_ids == ()


def test_instructions_of_examples_are_left_to_the_request() -> None:
    prefix = few_shot_prefix(MOSTLY_CALLS, 4, 6000, 0)
    assert {message["role"] for message in prefix.messages} == {"user", "assistant"}


def test_calls_are_shown_in_the_form_a_request_may_hold() -> None:
    example = row("r", "weather")
    del example["completion"][0]["tool_calls"][0]["id"]
    example["completion"][0]["tool_call_id"] = None
    (_, answer) = few_shot_prefix([example], 1, 6000, 0).messages
    call = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}
    assert answer == {"role": "assistant", "content": None, "tool_calls": [call]}
