"""What each metric of structured answers promises, and that nothing in the traffic can stop it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.metrics import score_rows, structured
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, WorkloadType

METRICS = (structured.exact_match, structured.field_precision, structured.field_recall, structured.field_f1)
NO_JSON = [
    "",
    "42",
    '"Bern"',
    "null",
    "Bern",
    '{"a": 1',
    '```json\n{"a": 1}\n```',
    'Sure: {"a": 1}',
    '{"a": NaN}',
    "{'a': 1}",
]

leaf = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
# Text without halves of surrogate pairs, as everything that was read from a log.
value = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
document = st.dictionaries(st.text(), value, max_size=4) | st.lists(value, max_size=4)


def row(reference: Any, *, schema: Any = None, response_format: Any = None) -> EvalRow:
    """A reference as text or as a value; `schema` is asked for in OpenAI's form."""
    request: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}]}
    if schema is not None:
        response_format = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    if response_format is not None:
        request["response_format"] = response_format
    text = reference if reference is None or isinstance(reference, str) else json.dumps(reference)
    return EvalRow("r1", "t1", "c1", request, Answer(text), "single")


def said(content: Any) -> Answer:
    return Answer(content if content is None or isinstance(content, str) else json.dumps(content))


class TestJsonValid:
    @pytest.mark.parametrize("text", ['{"a": 1}', " [1, 2]\n", "{}", "[]", '{"a": 1, "a": 2}'])
    def test_an_object_or_list_from_end_to_end_is_json(self, text: str) -> None:
        assert structured.json_valid(row({"a": 1}), said(text)) == 1.0

    @pytest.mark.parametrize("text", [*NO_JSON, None, "\ud800", '{"a": "\ud800"}', '{"a": "\\ud800"}'])
    def test_anything_else_is_not(self, text: str | None) -> None:
        assert structured.json_valid(row({"a": 1}), said(text)) == 0.0

    def test_it_applies_where_json_was_asked_for_or_the_reference_is_json(self) -> None:
        assert structured.json_valid(row("sorry", response_format={"type": "json_object"}), said({})) == 1.0
        assert structured.json_valid(row("sorry", response_format={"type": "text"}), said({})) is None
        assert structured.json_valid(row(None), said({})) is None


class TestSchemaValid:
    SCHEMA: dict[str, Any] = {  # noqa: RUF012
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
        "additionalProperties": False,
    }

    @pytest.mark.parametrize(
        ("answer", "score"),
        [
            ({"city": "Bern"}, 1.0),
            ({"city": "Bern", "days": 2.0}, 1.0),
            ({"city": "Bern", "days": 0}, 0.0),
            ({"days": 2}, 0.0),
            ({"city": "Bern", "more": 1}, 0.0),
            ([], 0.0),
            ("Bern", 0.0),
            (None, 0.0),
        ],
    )
    def test_the_answer_is_held_against_the_schema_that_was_asked_for(self, answer: Any, score: float) -> None:
        assert structured.schema_valid(row({"city": "Bern"}, schema=self.SCHEMA), said(answer)) == score

    def test_the_schema_may_stand_beside_the_type_as_local_servers_take_it(self) -> None:
        asked = row({}, response_format={"type": "json_object", "schema": self.SCHEMA})
        assert structured.schema_valid(asked, said({"city": "Bern"})) == 1.0
        assert structured.schema_valid(asked, said({})) == 0.0

    @pytest.mark.parametrize("asked", [None, "json", {"type": "json_object"}, {"type": "json_schema", "json_schema": "s"}])
    def test_without_a_schema_it_does_not_apply(self, asked: Any) -> None:
        assert structured.schema_valid(row({}, response_format=asked), said({})) is None

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "dict"},
            {"type": 5},
            {"properties": []},
            {"$ref": "#/nowhere"},
            {"$ref": "https://example.com/city.json"},
            {"$ref": "file:///etc/hostname"},
            {"$schema": "https://example.com/of-our-own"},
            {"properties": {"a": {"pattern": "(("}}},
            {"properties": {"a": {"pattern": "(a{1000}){1000}"}}},
            {"description": "half a pair: \ud800"},
        ],
    )
    def test_a_schema_that_cannot_be_used_does_not_apply(self, schema: Any) -> None:
        assert structured.schema_valid(row({}, schema=schema), said({"a": "x"})) is None

    @pytest.mark.parametrize(
        "schema",
        [
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
            {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
            {"$dynamicAnchor": "x", "properties": {"a": {"$dynamicRef": "#x"}}},
        ],
    )
    def test_a_schema_that_refers_to_itself_ends(self, schema: Any) -> None:
        # In a process of its own: an overflowing stack would take the whole test run with it.
        code = (
            "import json, sys\n"
            "from flywheel_assets.core.metrics.schemas import validator_of\n"
            "print(validator_of(json.loads(sys.argv[1])).is_valid({'a': {'a': {}}}))"
        )
        done = subprocess.run([sys.executable, "-c", code, json.dumps(schema)], capture_output=True, text=True, timeout=30)
        assert done.stdout.strip() == "True", done.stderr[-500:]

    @pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=(a+)+$)(a|aa)+$", "^(a|a)*b$"])
    def test_a_pattern_that_explodes_is_given_up(self, pattern: str) -> None:
        asked = row({}, schema={"properties": {"a": {"pattern": pattern}}})
        assert structured.schema_valid(asked, said({"a": "a" * 5_000 + "!"})) == 0.0

    def test_formats_are_words_and_not_checked(self) -> None:
        asked = row({}, schema={"properties": {"when": {"type": "string", "format": "date"}}})
        assert structured.schema_valid(asked, said({"when": "tomorrow"})) == 1.0

    def test_a_schema_of_any_depth_that_a_record_can_hold_is_used(self) -> None:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(100):
            schema = {"properties": {"a": schema}}
        assert structured.schema_valid(row({}, schema=schema), said({"a": {"a": {}}})) == 1.0


class TestFields:
    @pytest.mark.parametrize(
        ("reference", "answer", "exact", "precision", "recall"),
        [
            ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, 1, 1, 1),
            ({"a": 1, "b": 2}, {"a": 1}, 0, 1, 1 / 2),
            ({"a": 1}, {"a": 1, "b": 2, "c": 3}, 0, 1 / 3, 1),
            ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 0, 1 / 2, 1 / 2),
            ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, 0, 1 / 2, 1 / 2),
            ({"a": [1, 2]}, {"a": [2, 1]}, 0, 0, 0),
            ({"a": []}, {"a": []}, 1, 1, 1),
            ({"a": []}, {"a": {}}, 0, 0, 0),
            ({}, {}, 1, 1, 1),
            ({}, [], 0, 0, 0),
            ({"a": 1}, {"a": True}, 0, 0, 0),
            ({"a": None}, {}, 0, 0, 0),
            ({"a": "x"}, {"a": "X"}, 0, 0, 0),
            ({"a": 1}, "no JSON", 0, 0, 0),
            ({"a": 1}, None, 0, 0, 0),
            ('{"a": 1, "a": 2}', {"a": 2}, 1, 1, 1),
            ({"0": 1}, [1], 0, 0, 0),
            ({"a.b": 1}, {"a": {"b": 1}}, 0, 0, 0),
            ({"n": 10**30}, '{"n": 1e30}', 1, 1, 1),
        ],
    )
    def test_fields_are_compared_by_path_and_value(
        self, reference: Any, answer: Any, exact: float, precision: float, recall: float
    ) -> None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        expected = (exact, precision, recall, f1)
        assert tuple(metric(row(reference), said(answer)) for metric in METRICS) == pytest.approx(expected)

    @pytest.mark.parametrize("reference", [*NO_JSON, None])
    def test_they_do_not_apply_where_the_reference_is_no_json(self, reference: str | None) -> None:
        assert {metric(row(reference), said({"a": 1})) for metric in METRICS} == {None}

    def test_answers_nested_beyond_reason_are_wrong_and_stop_nothing(self) -> None:
        for deep in ("[" * 65 + "]" * 65, '{"a":' * 900 + "1" + "}" * 900, "[" * 100_000):
            assert [metric(row({"a": 1}), said(deep)) for metric in METRICS] == [0.0] * 4
            assert structured.schema_valid(row({}, schema={"type": "array"}), said(deep)) == 0.0
        assert structured.exact_match(row("[" * 64 + "]" * 64), said("[" * 64 + "]" * 64)) == 1.0


@settings(deadline=None)
@given(document)
def test_a_document_agrees_with_itself_however_it_is_written(value: Any) -> None:
    examined = row(json.dumps(value))
    for text in (json.dumps(value, indent=2), json.dumps(value, ensure_ascii=False), json.dumps(value, sort_keys=True)):
        assert [metric(examined, said(text)) for metric in METRICS] == [1.0] * 4
        assert structured.json_valid(examined, said(text)) == 1.0


@settings(deadline=None)
@given(document, document)
def test_scores_are_shares_and_f1_is_their_harmonic_mean(one: Any, other: Any) -> None:
    exact, precision, recall, f1 = (metric(row(json.dumps(one)), said(json.dumps(other))) for metric in METRICS)
    assert 0 <= min(precision, recall) <= f1 <= max(precision, recall) <= 1
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    assert (exact == 1.0) == (f1 == 1.0)


@settings(deadline=None)
@given(document, document)
def test_swapping_the_sides_swaps_precision_and_recall(one: Any, other: Any) -> None:
    there = structured.field_precision(row(json.dumps(one)), said(json.dumps(other)))
    assert there == structured.field_recall(row(json.dumps(other)), said(json.dumps(one)))


@settings(deadline=None)
@given(st.none() | st.text(st.characters(exclude_categories=())))
def test_whatever_a_model_writes_gets_a_score(text: str | None) -> None:
    scores = score_rows(WorkloadType.STRUCTURED, [row({"a": 1}, schema={"type": "object"})], [Prediction("r1", said(text))])
    assert all(0.0 <= column[0] <= 1.0 for column in scores.values())
