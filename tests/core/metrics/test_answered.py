"""Whether an answer in words is one: nothing, half an answer and a call in disguise are told from prose."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.metrics.answered import answered, holds_a_call, offered_names
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType

OFFERED = frozenset({"order_status", "ping", "search"})
TOOLS = [{"type": "function", "function": {"name": name}} for name in sorted(OFFERED)]
CALL = Answer(None, (ToolCall("order_status", '{"order": 7}'),))
TEXT = Answer("It ships on Monday.")
ARGUMENTS = '{"order": 7}'


def row(reference: Answer, row_id: str = "r", **request: Any) -> EvalRow:
    return EvalRow(row_id, "t", row_id, {"messages": [], "tools": TOOLS, **request}, reference, "single_turn")


@pytest.mark.parametrize(
    "text",
    [
        # The forms in which models write calls, as a server leaves them in the text that does not know the model.
        f'<tool_call>\n{{"name": "order_status", "arguments": {ARGUMENTS}}}\n</tool_call>',
        f'Let me look.\n<tool_call>{{"name": "unheard_of", "arguments": {ARGUMENTS}}}',
        f'<tool_call name="order_status">{ARGUMENTS}</tool_call>',
        '<tool_call name="ping"/>',
        "<tool_call>order_status\n<arg_key>order</arg_key>\n<arg_value>7</arg_value>\n</tool_call>",
        "<tool_call>\n<function=order_status>\n<parameter=order>\n7\n</parameter>\n</function>\n</tool_call>",
        f"<function=order_status>{ARGUMENTS}</function>",
        "<function=ping></function>",
        "<|python_tag|>order_status(order=7)",
        f'<|python_tag|>{{"name": "order_status", "parameters": {ARGUMENTS}}}',
        f'[TOOL_CALLS][{{"name": "order_status", "arguments": {ARGUMENTS}}}]',
        f"[TOOL_CALLS]order_status{ARGUMENTS}",
        f'<|tool_call|>[{{"name": "order_status", "arguments": {ARGUMENTS}}}]',
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>order_status\n```json\n{ARGUMENTS}\n```",
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.order_status:0<|tool_call_argument_begin|>{ARGUMENTS}",
        f"<|channel|>commentary to=functions.order_status <|message|>{ARGUMENTS}",
        f'<TOOLCALL>[{{"name": "order_status", "arguments": {ARGUMENTS}}}]</TOOLCALL>',
        '<function_calls><invoke name="order_status"><parameter name="order">7</parameter></invoke></function_calls>',
        "```tool_code\nprint(order_status(order=7))\n```",
        f'{{"name": "order_status", "arguments": {ARGUMENTS}}}',
        f'{{"type": "function", "function": {{"name": "order_status", "arguments": {json.dumps(ARGUMENTS)}}}}}',
        f'[{{"name": "order_status", "parameters": {ARGUMENTS}}}, {{"name": "ping", "parameters": {{}}}}]',
        f'{{"tool_calls": [{{"function": {{"name": "order_status", "arguments": {ARGUMENTS}}}}}]}}',
        f'```json\n{{"name": "order_status", "arguments": {ARGUMENTS}}}\n```',
        f'Sure, I will check that. {{"name": "order_status", "arguments": {ARGUMENTS}}} One moment!',
        f'{{"order_status": {ARGUMENTS}}}',
        '{"name": "ping"}',
        f'{{"action": "order_status", "action_input": {ARGUMENTS}}}',
        "[order_status(order=7), ping()]",
        "order_status(order=7)",
        f"Thought: I need the status.\nAction: order_status\nAction Input: {ARGUMENTS}",
    ],
)
def test_a_call_in_the_text_is_no_answer(text: str) -> None:
    assert holds_a_call(text, OFFERED)
    assert answered(row(TEXT), Answer(text)) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Refunds take 5 to 7 business days.",
        "42",
        "No.",
        "\U0001f44d",
        "はい、月曜日に発送されます。",
        # Prose about JSON, tools, calls and tags.
        'The API returns JSON such as {"name": "Bob", "age": 7}.',
        'Send {"order": 7} to the endpoint, and it answers [1, 2].',
        "I can look that up with order_status if you tell me the number.",
        "You would call `order_status(order=7)` for that; I have not done so.",
        "Qwen writes each call inside the <tool_call> tag, as its documentation says.",
        "Qwen writes `<tool_call>{...}</tool_call>`; we do not.",
        "a < b, b > c and f(x) = [1, 2]",
        "<b>Order 7</b> ships on Monday.",
        "The function=order_status setting is documented.",
        '{"status": "shipped", "eta": "Monday"}',
        '{"name": "Bob", "arguments": "none so far"}',
        '[{"name": "order_status", "description": "Says where an order is."}]',
        "Our search finds it: search for the order, then open it.",
        "ACTION: please call us.\nAction: none",
        "```python\nprint(total(order))\n```",
        "<think>They ask about refunds; no tool fits.</think>\nRefunds take 5 days.",
        "They ask about refunds.\n</think>\n\nRefunds take 5 days.",
        "Done.<|im_end|>",
    ],
)
def test_prose_about_tools_and_json_is_an_answer(text: str) -> None:
    assert answered(row(TEXT), Answer(text)) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(None),
        Answer(""),
        Answer(" \n\t\u00a0\u200b\ufeff"),
        Answer("\x00"),
        Answer("<|im_end|>"),
        Answer("</s>"),
        Answer("<think>\n\n</think>\n\n"),
        Answer("<think>They ask about refunds and"),
        Answer("They ask about refunds.\n</think>\n"),
        Answer("Refunds take", cut_off="length"),
        Answer("Refunds take 5 days.", cut_off="content_filter"),
        CALL,
        Answer("I will look.", CALL.tool_calls),
    ],
)
def test_nothing_half_an_answer_and_a_proper_call_are_no_answer(answer: Answer) -> None:
    assert answered(row(TEXT), answer) == 0.0


def test_it_applies_where_no_call_is_expected_whatever_was_answered() -> None:
    rows = [row(CALL, "call"), row(TEXT, "text"), row(Answer(""), "nothing"), row(TEXT, "error")]
    predictions = [Prediction("call", TEXT), Prediction("text", TEXT), Prediction("nothing", Answer(""))]
    scores = score_rows(WorkloadType.TOOL_CALLING, rows, [*predictions, Prediction("error", None, error="timeout")])
    np.testing.assert_array_equal(scores["answered"], [np.nan, 1.0, 0.0, 0.0])
    # Text is compared with text: where the teacher called a tool, or said nothing, there is none.
    np.testing.assert_array_equal(scores["f1"], [np.nan, 1.0, np.nan, 0.0])
    np.testing.assert_array_equal(scores["exact_match"], [np.nan, 1.0, np.nan, 0.0])


def test_without_tools_on_offer_json_is_text_and_a_tag_is_still_a_call() -> None:
    bare = row(TEXT, tools=[])
    assert answered(bare, Answer(f'{{"name": "order_status", "arguments": {ARGUMENTS}}}')) == 1.0
    assert answered(bare, Answer('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')) == 0.0
    assert offered_names({"functions": [{"name": "old"}], "tools": None}) == {"old"}


@pytest.mark.parametrize(
    "text", ["{" * 200_000, '{"name": ' * 50_000, "<tool_call> a" * 50_000, "[" * 300_000, " <" * 200_000]
)
def test_a_model_that_loops_costs_no_time(text: str) -> None:
    began = time.monotonic()
    holds_a_call(text + " order_status", OFFERED)
    answered(row(TEXT), Answer(text))
    assert time.monotonic() - began < 2.0
