"""Odd but legal traffic: what endpoints, proxies and loggers really write, and numbers no one would.

Whether the log schema takes such a line is for the tests to find out.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.core.datasets.workbench import call, log_line, tool

USER = {"role": "user", "content": "Weather in Bern?"}
OFFERED = call("get_weather", {"city": "Bern"})
WITHOUT_TYPE = {"id": "c1", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}

# What an assistant's message is at times.
ANSWERS: dict[str, dict[str, Any]] = {
    "call": OFFERED,
    "call and text": {**OFFERED, "content": "One moment."},
    "call without a type": {"role": "assistant", "content": None, "tool_calls": [WITHOUT_TYPE]},
    "two calls, one id": {**OFFERED, "tool_calls": OFFERED["tool_calls"] * 2},
    "a tool that was not offered": call("launch_rocket", {"now": True}),
    "arguments as an object": {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Bern", "days": 1e300}}}],
    },
    "text": {"role": "assistant", "content": "It rains."},
    "empty text": {"role": "assistant", "content": ""},
    "blanks": {"role": "assistant", "content": " \n\t"},
    "parts": {"role": "assistant", "content": [{"type": "text", "text": "It "}, {"type": "text", "text": "rains."}]},
    "refusal": {"role": "assistant", "content": None, "refusal": "I cannot help with that."},
    "reasoning": {"role": "assistant", "content": "Rain.", "reasoning_content": "Bern, November..."},
    "thinking in the text": {"role": "assistant", "content": "<think>Bern...</think>Rain."},
    "NUL": {"role": "assistant", "content": "Ra\u0000in."},
    "JSON": {"role": "assistant", "content": '{"rain": 1e400, "city": "Bern"}'},
    "JSON with NaN": {"role": "assistant", "content": '{"rain": NaN}'},
    "no function call": {"role": "assistant", "content": "Rain.", "function_call": None, "tool_calls": None},
    "no calls": {"role": "assistant", "content": "Rain.", "tool_calls": []},
    "a very long word": {"role": "assistant", "content": "r" * 5000},
}
PROMPTS: dict[str, list[dict[str, Any]]] = {
    "a question": [USER],
    "only instructions": [{"role": "system", "content": "Tell the weather."}],
    "a tool's answer to no call": [USER, {"role": "tool", "tool_call_id": "c9", "content": "rain"}],
    "a tool's answer without an id": [USER, OFFERED, {"role": "tool", "content": ""}],
    "ends with the assistant": [USER, {"role": "assistant", "content": "The weather is"}],
    "user in parts": [{"role": "user", "content": [{"type": "text", "text": "Weather?"}]}],
    "a name": [{**USER, "name": "Dr. O'Neil <x>"}],
    "developer": [{"role": "developer", "content": "Be brief."}, USER],
    "empty question": [{"role": "user", "content": ""}],
    "surrogates": [{"role": "user", "content": "\U000ca562 \u202e Bern"}],
}
TOOLS: dict[str, Any] = {
    "offered": [tool("get_weather")],
    "none": None,
    "an empty list": [],
    "twice": [tool("get_weather"), tool("get_weather")],
}

# Numbers that were logged somewhere, once; most of them are refused.
NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, -1, 0.5, 1e-320, -0.0, 1e308, -1e308, 1e300, 2**31, 2**53 + 1, 2**63, True, False, "12", None, [], {}]
    ),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 10_000),
)
# A number that stands as it is and a text that says one too much, for counts.
COUNTS = st.one_of(st.integers(0, 10**8), NUMBERS)


@st.composite
def odd_lines(draw: st.DrawFn, *, least: int = 8, most: int = 14) -> list[dict[str, Any]]:
    """Log lines of one workload; each may be odd in every way at once."""
    return [draw(_odd_line(number)) for number in range(draw(st.integers(least, most)))]


@st.composite
def _odd_line(draw: st.DrawFn, number: int) -> dict[str, Any]:
    asked = draw(st.sampled_from(sorted(PROMPTS)))
    answer = ANSWERS[draw(st.sampled_from(sorted(ANSWERS)))]
    # Else all lines are one conversation.
    messages = [*PROMPTS[asked][:-1], *({**m} for m in PROMPTS[asked][-1:])]
    messages = [{"role": "system", "content": f"Case {number}"}, *messages]
    line = log_line(number, messages=messages, tools=TOOLS[draw(st.sampled_from(sorted(TOOLS)))], answer=answer)
    choices = line["response"]["choices"]
    choices[0]["finish_reason"] = draw(st.sampled_from(["stop", "tool_calls", "length", "content_filter", None, 7, "eos"]))
    if draw(st.booleans()):
        choices.append({"index": 0, "message": {"role": "assistant", "content": "another"}, "finish_reason": "stop"})
    line["response"]["usage"] = draw(_usage())
    for name in ("latency_ms", "cost_usd"):
        if draw(st.booleans()):
            line[name] = draw(NUMBERS)
    if draw(st.booleans()):
        line["feedback"] = {"score": draw(NUMBERS)}
        if draw(st.booleans()):
            line["feedback"]["correction"] = draw(st.sampled_from(["It snows.", "", OFFERED]))
    return line


def _usage() -> st.SearchStrategy[Any]:
    counted = st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": COUNTS,
            "completion_tokens": COUNTS,
            "total_tokens": COUNTS,
            "prompt_tokens_details": st.one_of(st.none(), st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS})),
            "cached_tokens": COUNTS,
        },
    )
    return st.one_of(st.none(), counted)
