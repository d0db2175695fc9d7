"""What makes a call one that could be executed."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core.metrics.valid_calls import count_valid, valid_call
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
RIGHT = ToolCall("count", '{"n": 1}')


def row(*, schema: Any = SCHEMA, reference: Answer | None = None) -> EvalRow:
    request = {"messages": [], "tools": [{"type": "function", "function": {"name": "count", "parameters": schema}}]}
    return EvalRow("r1", "t1", "c1", request, reference or Answer(None, (RIGHT,)), "single")


@pytest.mark.parametrize(
    ("calls", "score"),
    [
        ((RIGHT,), 1.0),
        ((ToolCall("count", '{"n": 99}'), RIGHT), 1.0),
        ((), 0.0),
        ((RIGHT, ToolCall("guess", '{"n": 1}')), 0.0),
        ((ToolCall("count", '{"n": "1"}'),), 0.0),
        ((ToolCall("count", "{}"),), 0.0),
        ((ToolCall("count", '{"n": 1'),), 0.0),
        ((ToolCall("count", "[1]"),), 0.0),
        ((ToolCall("count", '{"n": "\ud800"}'),), 0.0),
    ],
)
def test_every_call_must_be_offered_readable_and_fit_the_schema(calls: tuple[ToolCall, ...], score: float) -> None:
    assert valid_call(row(), Answer(None, calls)) == score


def test_it_does_not_apply_where_no_call_is_expected() -> None:
    assert valid_call(row(reference=Answer("no")), Answer(None, (RIGHT,))) is None
    assert count_valid(row().request, Answer("no")) == 0


@pytest.mark.parametrize("schema", [None, True, {"type": "dict"}, {}])
def test_without_a_usable_schema_an_object_is_enough(schema: Any) -> None:
    assert valid_call(row(schema=schema), Answer(None, (ToolCall("count", '{"anything": 1}'),))) == 1.0
    assert valid_call(row(schema=schema), Answer(None, (ToolCall("count", "nothing"),))) == 0.0


def test_where_the_request_lists_no_tools_nobody_can_say() -> None:
    bare = EvalRow("r1", "t1", "c1", {"messages": []}, Answer(None, (RIGHT,)), "single")
    assert valid_call(bare, Answer(None, (RIGHT,))) is None
    assert count_valid(bare.request, Answer(None, (RIGHT,))) == 0
