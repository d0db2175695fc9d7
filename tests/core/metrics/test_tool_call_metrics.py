"""What each tool-calling metric promises, and where it may not be fooled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flywheel_assets.core.metrics import bfcl, nemo, strict
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall

Call = tuple[str, Any]


def answer(*calls: Call, content: str | None = None) -> Answer:
    """Calls as (name, arguments); a string is taken as the arguments' text, anything else is encoded."""
    made = tuple(ToolCall(name, args if isinstance(args, str) else json.dumps(args)) for name, args in calls)
    return Answer(content, made)


def row(*calls: Call, accepted: list[dict[str, Any]] | None = None, parameters: dict[str, Any] | None = None) -> EvalRow:
    request: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}]}
    if parameters is not None:
        request["tools"] = [{"type": "function", "function": {"name": calls[0][0], "parameters": parameters}}]
    return EvalRow("r1", "t1", "c1", request, answer(*calls), "single", accepted=tuple(accepted) if accepted else None)


class TestStrict:
    def test_the_order_of_parallel_calls_does_not_count(self) -> None:
        expected = row(("f", {"a": 1}), ("g", {}))
        assert strict.function_name_and_args(expected, answer(("g", {}), ("f", {"a": 1}))) == 1.0

    def test_a_call_made_twice_is_not_a_call_made_once(self) -> None:
        expected = row(("f", {"a": 1}), ("f", {"a": 1}))
        assert strict.function_name(expected, answer(("f", {"a": 1}))) == 0.0
        assert strict.function_name_and_args(expected, answer(("f", {"a": 1}))) == 0.0
        assert strict.function_name_and_args(expected, expected.reference) == 1.0

    @pytest.mark.parametrize(
        ("said", "score"),
        [('{"a": 2.0}', 1.0), ('{ "a":2 }', 1.0), ('{"a": "2"}', 0.0), ('{"a": 2, "b": null}', 0.0), ("{}", 0.0)],
    )
    def test_arguments_are_compared_as_values_not_as_text(self, said: str, score: float) -> None:
        assert strict.function_name_and_args(row(("f", {"a": 2})), answer(("f", said))) == score

    @pytest.mark.parametrize(
        ("said", "precision", "recall"),
        [
            ([("f", {"a": 1, "b": 2})], 1, 1),
            ([("f", {"a": 1})], 1, 1 / 2),
            ([("f", {"a": 1, "b": 2, "c": 3, "d": 4})], 1 / 2, 1),
            ([("f", {"a": 1, "b": 2}), ("f", {"a": 1, "b": 2})], 1 / 2, 1),
            ([("f", {"a": 1, "b": 2}), ("f", "{")], 2 / 3, 1),
            ([("g", {"a": 1, "b": 2})], 0, 0),
            ([], 0, 0),
        ],
    )
    def test_argument_precision_and_recall_are_what_f1_is_the_mean_of(
        self, said: list[Call], precision: float, recall: float
    ) -> None:
        expected = row(("f", {"a": 1, "b": 2}))
        assert strict.args_precision(expected, answer(*said)) == pytest.approx(precision)
        assert strict.args_recall(expected, answer(*said)) == pytest.approx(recall)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert strict.args_f1(expected, answer(*said)) == pytest.approx(f1)

    def test_arguments_are_not_judged_where_no_call_is_expected(self) -> None:
        silent = row()
        assert strict.args_precision(silent, answer(("f", {}))) is strict.args_recall(silent, answer(("f", {}))) is None

    def test_true_is_not_one(self) -> None:
        assert strict.function_name_and_args(row(("f", {"a": 1})), answer(("f", {"a": True}))) == 0.0
        assert strict.args_f1(row(("f", {"a": [0]})), answer(("f", {"a": [False]}))) == 0.0

    @pytest.mark.parametrize("said", ["", "{", "[1]", '"a"', "NaN", '{"a": NaN}', "\ud800", '{"a":' * 900 + "1" + "}" * 900])
    def test_malformed_arguments_score_zero_and_keep_their_name(self, said: str) -> None:
        expected = row(("f", {"a": 1}))
        assert strict.function_name(expected, answer(("f", said))) == 1.0
        assert strict.function_name_and_args(expected, answer(("f", said))) == 0.0
        assert strict.args_f1(expected, answer(("f", said))) == 0.0
        assert bfcl.ast_match(expected, answer(("f", said))) == 0.0

    def test_rows_without_an_expected_call_belong_to_no_call_alone(self) -> None:
        silent = row()
        for metric in (strict.function_name, strict.function_name_and_args, strict.args_f1, bfcl.ast_match):
            assert metric(silent, answer()) is None
        assert strict.no_call(silent, answer(content="I cannot do that.")) == 1.0
        assert strict.no_call(silent, answer(("f", {}))) == 0.0
        assert strict.no_call(row(("f", {})), answer()) is None

    def test_args_f1_counts_leaves_of_nested_arguments(self) -> None:
        expected = row(("f", {"a": 1, "b": {"c": [1, 2]}}))
        # Two of three leaves, one too many: precision 2/3, recall 2/3.
        assert strict.args_f1(expected, answer(("f", {"a": 1, "b": {"c": [1, 3]}}))) == pytest.approx(2 / 3)

    def test_args_f1_gives_nothing_for_right_arguments_of_the_wrong_function(self) -> None:
        assert strict.args_f1(row(("f", {"a": 1})), answer(("g", {"a": 1}))) == 0.0

    def test_a_call_without_arguments_can_be_matched(self) -> None:
        assert strict.args_f1(row(("f", {})), answer(("f", {}))) == 1.0
        assert strict.args_f1(row(("f", {})), answer()) == 0.0


class TestNemo:
    def test_duplicate_parallel_calls_are_lost_as_in_nemo(self) -> None:
        expected = row(("f", {"a": 1}), ("f", {"a": 2}))
        assert nemo.function_name(expected, answer(("f", {"a": 2}))) == 1.0
        assert nemo.function_name_and_args(expected, answer(("f", {"a": 2}))) == 1.0

    def test_of_two_calls_of_one_name_the_last_one_counts_as_in_nemo(self) -> None:
        expected = row(("f", {"a": 1}), ("f", {"a": 2}))
        assert nemo.function_name_and_args(expected, answer(("f", {"a": 2}), ("f", {"a": 1}))) == 0.0

    def test_malformed_arguments_leave_the_mean_as_in_nemo(self) -> None:
        assert nemo.function_name_and_args(row(("f", {"a": 1})), answer(("f", "{"))) is None
        # Arguments are parsed before names are compared, so a wrong name does not save the row.
        assert nemo.function_name_and_args(row(("f", {"a": 1})), answer(("g", "{"))) is None

    @pytest.mark.parametrize("said", ['{"a": ' + "1" * 5_000 + "}", "[" * 100_000])
    def test_what_python_refuses_to_parse_is_malformed_and_ends_no_evaluation(self, said: str) -> None:
        """NeMo's own evaluation ends there with a ValueError or a RecursionError."""
        expected = row(("f", {"a": 1}))
        assert nemo.function_name_and_args(expected, answer(("f", said))) is None
        assert nemo.function_name(expected, answer(("f", said))) == 1.0

    @given(st.text(st.sampled_from('{}[]":,0123456789.eE+-aNfintrulsy \\\\ud8\ud800\n'), max_size=24) | st.text())
    @example("18446744073709551616")
    @example("-9223372036854775809")
    @example("1e400")
    @example('{"a": "\\ud800"}')
    @example("NaN")
    def test_arguments_are_read_as_the_standard_library_reads_them(self, said: str) -> None:
        try:
            expected = json.loads(said)
        except (ValueError, RecursionError):
            with pytest.raises((ValueError, RecursionError)):
                nemo._loads(said)
            return
        assert repr(nemo._loads(said)) == repr(expected)

    def test_not_a_number_equals_itself_inside_arguments_only_as_in_nemo(self) -> None:
        """Python's parser has one NaN, and containers compare by identity first."""
        assert nemo.function_name_and_args(row(("f", '{"a": NaN}')), answer(("f", '{"a":NaN}'))) == 1.0
        assert nemo.function_name_and_args(row(("f", "NaN")), answer(("f", "NaN"))) == 0.0

    def test_no_call_where_none_was_expected_counts_as_a_match(self) -> None:
        assert nemo.function_name(row(), answer()) == nemo.function_name_and_args(row(), answer()) == 1.0
        assert nemo.function_name(row(), answer(("f", {}))) == 0.0


class TestBfcl:
    SCHEMA: dict[str, Any] = {  # noqa: RUF012
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "limit": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "filter": {"type": "object", "properties": {"kind": {"type": "string"}, "size": {"type": "integer"}}},
        },
        "required": ["city"],
    }

    def fits(self, accepted: dict[str, list[Any]], said: dict[str, Any]) -> float | None:
        return bfcl.ast_match(row(("f", {}), accepted=[{"f": accepted}], parameters=self.SCHEMA), answer(("f", said)))

    @pytest.mark.parametrize("city", ["New York, NY", "new york ny", "NEW-YORK_NY"])
    def test_strings_are_compared_without_case_blanks_and_punctuation(self, city: str) -> None:
        assert self.fits({"city": ["New York, NY", "NYC"]}, {"city": city}) == 1.0

    def test_any_accepted_value_will_do_and_no_other(self) -> None:
        assert self.fits({"city": ["Paris", "Paris, FR"]}, {"city": "Paris FR"}) == 1.0
        assert self.fits({"city": ["Paris", "Paris, FR"]}, {"city": "Lyon"}) == 0.0

    def test_a_parameter_may_be_left_out_only_where_the_empty_string_is_accepted(self) -> None:
        assert self.fits({"city": ["a"], "days": [3, ""]}, {"city": "a"}) == 1.0
        assert self.fits({"city": ["a"], "days": [3]}, {"city": "a"}) == 0.0

    def test_a_required_parameter_of_the_schema_may_not_be_left_out(self) -> None:
        assert self.fits({"city": ["a", ""]}, {}) == 0.0

    def test_an_unexpected_parameter_is_wrong(self) -> None:
        assert self.fits({"city": ["a"]}, {"city": "a", "days": 3}) == 0.0

    def test_an_integer_passes_for_a_float_but_not_the_other_way_round(self) -> None:
        assert self.fits({"city": ["a"], "limit": [2.0]}, {"city": "a", "limit": 2}) == 1.0
        assert self.fits({"city": ["a"], "days": [2]}, {"city": "a", "days": 2.0}) == 0.0
        assert self.fits({"city": ["a"], "days": [1]}, {"city": "a", "days": True}) == 0.0

    def test_values_inside_lists_and_objects_follow_the_same_rules(self) -> None:
        accepted = {"city": ["a"], "tags": [["Red ", "blue"]], "filter": [{"kind": ["big", "large"], "size": [3, ""]}]}
        assert self.fits(accepted, {"city": "a", "tags": ["red", "Blue"], "filter": {"kind": "LARGE"}}) == 1.0
        assert self.fits(accepted, {"city": "a", "tags": ["blue", "red"], "filter": {"kind": "large"}}) == 0.0
        assert self.fits(accepted, {"city": "a", "tags": ["red", "blue"], "filter": {"kind": "tiny"}}) == 0.0

    def test_parallel_calls_need_one_call_each_in_any_order(self) -> None:
        loose, exact = {"f": {"a": [1], "b": [2, ""]}}, {"f": {"a": [1], "b": [""]}}
        expected = row(("f", {}), ("f", {}), accepted=[loose, exact])
        both = [("f", {"a": 1}), ("f", {"a": 1, "b": 2})]
        assert bfcl.ast_match(expected, answer(*both)) == bfcl.ast_match(expected, answer(*reversed(both))) == 1.0
        assert bfcl.ast_match(expected, answer(both[1], both[1])) == 0.0
        assert bfcl.ast_match(expected, answer(both[0])) == 0.0

    @pytest.mark.parametrize("said", [[12, 15.5], [12.0, 15.5]])
    def test_an_integer_passes_for_a_float_in_a_list_too_unlike_in_the_leaderboard(self, said: list[float]) -> None:
        parameters = {"properties": {"n": {"type": "array", "items": {"type": "number"}}}}
        expected = row(("f", {}), accepted=[{"f": {"n": [[12.0, 15.5]]}}], parameters=parameters)
        assert bfcl.ast_match(expected, answer(("f", {"n": said}))) == 1.0

    def test_true_is_not_one_inside_an_object_unlike_in_the_leaderboard(self) -> None:
        expected = row(("f", {}), accepted=[{"f": {"a": [{"on": [True], "n": [1]}]}}])
        assert bfcl.ast_match(expected, answer(("f", {"a": {"on": True, "n": 1.0}}))) == 1.0
        assert bfcl.ast_match(expected, answer(("f", {"a": {"on": 1, "n": 1}}))) == 0.0
        assert bfcl.ast_match(expected, answer(("f", {"a": {"on": True, "n": True}}))) == 0.0

    def test_text_is_compared_without_case_and_punctuation_at_any_depth_unlike_in_the_leaderboard(self) -> None:
        expected = row(("f", {}), accepted=[{"f": {"hands": [{"alex": [["A of spades", "K of hearts"]]}]}}])
        assert bfcl.ast_match(expected, answer(("f", {"hands": {"alex": ["a Of Spades", "k-of-hearts"]}}))) == 1.0

    def test_a_call_that_two_accepted_ones_fit_is_left_to_the_one_that_needs_it_unlike_in_the_leaderboard(self) -> None:
        """Its parallel_178: the first accepted call takes either company, the third one needs Apple."""
        either, apple = {"price": {"company": ["Microsoft", "Apple"]}}, {"price": {"company": ["Apple"]}}
        expected = row(("price", {}), ("price", {}), accepted=[either, apple])
        said = [("price", {"company": "Apple"}), ("price", {"company": "Microsoft"})]
        assert bfcl.ast_match(expected, answer(*said)) == bfcl.ast_match(expected, answer(*reversed(said))) == 1.0

    def test_a_dotted_name_is_answered_with_underscores(self) -> None:
        expected = row(("math_hypot", {"x": 4}), accepted=[{"math.hypot": {"x": [4]}}])
        assert bfcl.ast_match(expected, answer(("math_hypot", {"x": 4}))) == 1.0

    @pytest.mark.parametrize(
        ("offered", "right", "wrong"),
        [("math_hypot", "math_hypot", "math.hypot"), ("math.hypot", "math.hypot", "math_hypot")],
    )
    def test_a_function_is_called_by_the_name_under_which_it_is_offered(self, offered: str, right: str, wrong: str) -> None:
        parameters = {"properties": {"x": {"type": "integer"}}}
        expected = row((offered, {"x": 4}), accepted=[{"math.hypot": {"x": [4]}}], parameters=parameters)
        assert bfcl.ast_match(expected, answer((right, {"x": 4}))) == 1.0
        assert bfcl.ast_match(expected, answer((wrong, {"x": 4}))) == 0.0
        assert bfcl.ast_match(expected, answer((right, {"x": 4.0}))) == 0.0

    def test_an_accepted_parameter_that_the_tool_does_not_declare_is_unexpected(self) -> None:
        """As in the leaderboard, three of whose own accepted answers have one."""
        assert self.fits({"city": ["a"], "hotel": ["h", ""]}, {"city": "a", "hotel": "h"}) == 0.0
        assert self.fits({"city": ["a"], "hotel": ["h", ""]}, {"city": "a"}) == 1.0
        open_schema = {**self.SCHEMA, "additionalProperties": True}
        said = answer(("f", {"city": "a", "hotel": "h"}))
        expected = row(("f", {}), accepted=[{"f": {"city": ["a"], "hotel": ["h"]}}], parameters=open_schema)
        assert bfcl.ast_match(expected, said) == 1.0
        # Without accepted answers the logged call is right whatever the tool declares.
        logged = row(("f", {"city": "a", "hotel": "h"}), parameters=self.SCHEMA)
        assert bfcl.ast_match(logged, said) == 1.0

    def test_the_name_of_a_variable_in_the_place_of_a_value_is_compared_as_written(self) -> None:
        """The leaderboard accepts text for a list where the question speaks of a variable."""
        assert self.fits({"city": ["a"], "tags": ["row['x']"]}, {"city": "a", "tags": "row['x']"}) == 1.0
        assert self.fits({"city": ["a"], "tags": ["row['x']"]}, {"city": "a", "tags": "Row['x'] "}) == 0.0
        assert self.fits({"city": ["", None]}, {"city": " "}) == 0.0

    def test_text_in_a_list_of_something_else_is_compared_as_text(self) -> None:
        accepted = {"f": {"sizes": [["Small", "big"]]}}
        expected = row(
            ("f", {}),
            accepted=[accepted],
            parameters={"properties": {"sizes": {"type": "array", "items": {"type": "integer"}}}},
        )
        assert bfcl.ast_match(expected, answer(("f", {"sizes": ["small", "BIG"]}))) == 1.0
        assert bfcl.ast_match(expected, answer(("f", {"sizes": ["small", 2]}))) == 0.0

    def test_a_value_of_another_type_passes_only_if_the_first_accepted_one_is_of_it(self) -> None:
        assert self.fits({"city": ["a"], "days": ["n", 3]}, {"city": "a", "days": "n"}) == 1.0
        assert self.fits({"city": ["a"], "days": [3, "n"]}, {"city": "a", "days": "n"}) == 0.0

    def test_an_empty_list_counts_as_left_out_where_that_is_accepted(self) -> None:
        assert self.fits({"city": ["a"], "tags": [["red"], ""]}, {"city": "a", "tags": []}) == 1.0
        assert self.fits({"city": ["a"], "tags": [["red"]]}, {"city": "a", "tags": []}) == 0.0
        assert self.fits({"city": ["a"], "days": [3, ""]}, {"city": "a", "days": []}) == 0.0

    def test_numbers_in_a_list_have_the_declared_type_and_deeper_ones_are_compared_by_value(self) -> None:
        flat = {"properties": {"n": {"type": "array", "items": {"type": "integer"}}}}
        expected = row(("f", {}), accepted=[{"f": {"n": [[1, 2]]}}], parameters=flat)
        assert bfcl.ast_match(expected, answer(("f", {"n": [1, 2.0]}))) == 0.0
        table = {"properties": {"n": {"type": "array", "items": flat["properties"]["n"]}}}
        expected = row(("f", {}), accepted=[{"f": {"n": [[[1], [2]]]}}], parameters=table)
        assert bfcl.ast_match(expected, answer(("f", {"n": [[1], [2.0]]}))) == 1.0

    def test_numbers_inside_objects_are_compared_by_value(self) -> None:
        accepted = {"city": ["a"], "filter": [{"kind": ["big"], "size": [3]}]}
        assert self.fits(accepted, {"city": "a", "filter": {"kind": "big", "size": 3.0}}) == 1.0
        assert self.fits(accepted, {"city": "a", "filter": {"kind": "big", "size": "3"}}) == 0.0

    def test_without_accepted_answers_the_reference_alone_is_right(self) -> None:
        expected = row(("f", {"a": "New York", "b": "", "c": {"d": [1, 2]}}))
        assert bfcl.ast_match(expected, answer(("f", {"a": "new york", "b": "", "c": {"d": [1, 2]}}))) == 1.0
        assert bfcl.ast_match(expected, answer(("f", {"a": "new york", "c": {"d": [1, 2]}}))) == 0.0

    def test_a_malformed_reference_is_matched_by_nothing(self) -> None:
        assert bfcl.ast_match(row(("f", "{")), answer()) == 0.0

    @pytest.mark.parametrize(
        "parameters", [{"properties": {"a": True}, "required": True}, {"properties": {"a": {"type": {}}}}]
    )
    def test_a_schema_that_says_nothing_usable_is_not_checked(self, parameters: dict[str, Any]) -> None:
        assert bfcl.ast_match(row(("f", {"a": 1}), parameters=parameters), answer(("f", {"a": 1}))) == 1.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
calls = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.sampled_from("xy"), json_values, max_size=2)),
    min_size=1,
    max_size=3,
)


@given(calls=calls, seed=st.randoms(use_true_random=False))
def test_the_reference_itself_in_any_order_scores_one_on_every_strict_metric(calls: list[Call], seed: Any) -> None:
    expected = row(*calls)
    shuffled = list(calls)
    seed.shuffle(shuffled)
    for metric in (strict.function_name, strict.function_name_and_args, strict.args_f1, bfcl.ast_match, nemo.function_name):
        assert metric(expected, answer(*shuffled)) == 1.0


@given(expected=calls, said=calls)
def test_a_full_match_implies_every_weaker_one(expected: list[Call], said: list[Call]) -> None:
    wanted, made = row(*expected), answer(*said)
    exact = strict.function_name_and_args(wanted, made)
    f1 = strict.args_f1(wanted, made)
    assert f1 is not None and 0.0 <= f1 <= 1.0
    if exact == 1.0:
        assert f1 == strict.function_name(wanted, made) == nemo.function_name(wanted, made) == 1.0
