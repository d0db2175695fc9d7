"""How eval rows are labelled: turns, what kind of turns, complexity, domain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.core.suites import DomainRule, complexity, domain, labels_of, turn_kind

Json = dict[str, Any]
ASKED, ANSWERED, WENT_ON = (
    {"role": "user", "content": "Book a table."},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "And one for tomorrow."},
)
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "book_table", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "ok"}
SAID = {"role": "assistant", "content": "No table is free."}


def tool(name: str, required: int = 1, optional: int = 0, nested: bool = False) -> Json:
    properties: Json = {f"r{i}": {"type": "string"} for i in range(required)}
    properties |= {f"o{i}": {"type": "string"} for i in range(optional)}
    if nested:
        properties["r0"] = {"type": "object", "properties": {"a": {"type": "string"}}}
    parameters = {"type": "object", "properties": properties, "required": [f"r{i}" for i in range(required)]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def request(*tools: Json, text: str = "Book a table.", **more: Any) -> Json:
    offered = {"tools": list(tools)} if tools else {}
    return {"messages": [{"role": "user", "content": text}], **offered, **more}


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([ASKED], None),
        ([{"role": "system", "content": "Be brief."}, ASKED, CALL, RESULT], None),
        ([ASKED, {"role": "assistant", "content": "For how many people?"}, WENT_ON], "clarification"),
        ([ASKED, {"role": "assistant", "content": "何名様ですか？ "}, WENT_ON], "clarification"),
        ([ASKED, CALL, RESULT, {"role": "assistant", "content": "Anything else?"}, WENT_ON], "clarification"),
        ([ASKED, CALL, RESULT, ANSWERED, WENT_ON], "sequential"),
        ([ASKED, ANSWERED, WENT_ON], "context_dependent"),
        ([ASKED, WENT_ON], "context_dependent"),
        ([ASKED, {"role": "assistant", "content": "Is it? Yes."}, WENT_ON], "context_dependent"),
    ],
)
def test_several_turns_are_told_apart_by_what_came_before_the_last_one(messages: list[Json], kind: str | None) -> None:
    assert turn_kind(messages) == kind
    assert labels_of({"messages": messages}, SAID)["suite_turns"] == ("multi_turn" if kind else "single_turn")


@pytest.mark.parametrize(
    ("asked", "answer", "level"),
    [
        (request(), SAID, None),
        (request(tool("a")), SAID, "simple"),
        (request(tool("a"), tool("b", optional=2)), CALL, "simple"),
        (request(tool("a"), tool("b"), tool("c")), CALL, "moderate"),
        (request(tool("a", optional=3)), CALL, "moderate"),
        (request(tool("a", nested=True)), CALL, "moderate"),
        (request(tool("a")), {**CALL, "tool_calls": CALL["tool_calls"] * 2}, "moderate"),
        (request(tool("a", nested=True, optional=3)), CALL, "complex"),
        (request(*(tool(f"t{i}") for i in range(9))), CALL, "complex"),
        (request(response_format={"type": "json_object"}), SAID, None),
    ],
)
def test_complexity_counts_what_there_is_to_get_right(asked: Json, answer: Json, level: str | None) -> None:
    assert complexity(asked, answer) == level


@pytest.mark.parametrize(("fields", "nested", "level"), [(3, False, "simple"), (8, False, "moderate"), (9, True, "complex")])
def test_an_asked_for_schema_has_a_complexity_too(fields: int, nested: bool, level: str) -> None:
    schema = tool("x", required=fields, nested=nested)["function"]["parameters"]
    asked = request(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert complexity(asked, SAID) == level


@pytest.mark.parametrize(
    ("asked", "answer", "name"),
    [
        (request(tool("billing.refund"), tool("billing.invoice")), SAID, "billing"),
        (request(tool("billing.refund"), tool("travel.book")), SAID, None),
        (request(tool("billing__refund")), SAID, "billing"),
        (request(tool("book_table")), CALL, None),
        (request(tool("a.b"), metadata={"domain": " travel "}), SAID, "travel"),
        (request(), SAID, None),
    ],
)
def test_without_rules_the_metadata_or_the_tools_namespace_names_the_domain(
    asked: Json, answer: Json, name: str | None
) -> None:
    assert domain(asked, answer) == name


RULES = (
    DomainRule("tables", tools=("book_*",)),
    DomainRule("eu", metadata=(("region", "eu"),), text="table|chair"),
    DomainRule("thanks", text=r"\bthanks\b"),
)


@pytest.mark.parametrize(
    ("asked", "answer", "name"),
    [
        (request(tool("book_table"), tool("cancel")), CALL, "tables"),
        (request(tool("book_table"), tool("cancel")), SAID, None),
        (request(tool("book_table")), SAID, "tables"),
        (request(metadata={"region": "eu"}), SAID, "eu"),
        (request(metadata={"region": "us"}), SAID, None),
        (request(text="Thanks for all"), SAID, "thanks"),
        (request(metadata={"domain": "other"}), SAID, None),
    ],
)
def test_the_first_rule_that_fits_in_all_its_conditions_names_the_domain(
    asked: Json, answer: Json, name: str | None
) -> None:
    assert domain(asked, answer, RULES) == name


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "properties", "required"]), inner),
    max_leaves=8,
)


@given(anything, anything)
def test_schemas_that_make_no_sense_are_labelled_all_the_same(parameters: Any, asked: Any) -> None:
    offered = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert complexity(request(offered), SAID) in ("simple", "moderate", "complex")
    labels_of(request(response_format={"json_schema": {"schema": asked}}, metadata=asked), SAID, RULES)
