"""Whose word counts: a person's correction before the teacher's answer, in the exam and in training."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from flywheel_assets.core.cleaning import QualityPolicy
from flywheel_assets.core.datasets import SplitPolicy, build_datasets, iter_training_rows, read_eval_rows
from flywheel_assets.core.datasets.gold import Gold, gold_of
from flywheel_assets.core.records import Record, Reject, parse_record
from flywheel_assets.core.rows import ToolCall
from tests.core.datasets.workbench import MAX_BYTES, NOW, Workbench, call, log_line

ALL_EXAMINED = SplitPolicy(eval_size=50, min_total_records=2, eval_share=0.999)
ALL_TRAINED = SplitPolicy(eval_size=50, min_total_records=2, eval_share=0.001)
RIGHT = call("get_weather", {"city": "Basel"})


def corrected(number: int, correction: Any = RIGHT, **feedback: Any) -> dict[str, Any]:
    return log_line(number, feedback={"correction": correction, **feedback})


def test_a_correction_is_what_a_row_is_examined_against_and_the_logged_answer_is_kept(workbench: Workbench) -> None:
    summary = workbench.add([corrected(0), log_line(1), log_line(2)], ALL_EXAMINED)
    rows = {row.trace_id: row for row in read_eval_rows(workbench.path("base"))}
    assert rows["t0"].gold == Gold.CORRECTION
    assert rows["t0"].reference.tool_calls == (ToolCall("get_weather", '{"city":"Basel"}'),)
    assert rows["t0"].logged is not None and rows["t0"].logged.tool_calls[0].arguments == '{"city":"0"}'
    assert rows["t1"].gold == Gold.TEACHER and rows["t1"].logged is None
    assert summary.eval_gold == {"correction": 1, "teacher": 2}


def test_a_correction_is_what_is_learned(workbench: Workbench) -> None:
    workbench.add([corrected(0, "It rains in Bern."), log_line(1), log_line(2)], ALL_TRAINED)
    completions = [row["completion"][0] for row in iter_training_rows(workbench.path("train"), "train")]
    assert "It rains in Bern." in [message["content"] for message in completions]
    assert not any('{"city":"0"}' in orjson.dumps(message).decode() for message in completions)


def test_a_correction_that_comes_later_reaches_the_row_and_moves_it_to_no_other_side(workbench: Workbench) -> None:
    workbench.add([log_line(number) for number in range(3)], ALL_EXAMINED)
    workbench.add([corrected(0)], ALL_EXAMINED)
    rows = {row.trace_id: row for row in read_eval_rows(workbench.path("base"))}
    assert sorted(rows) == ["t0", "t1", "t2"] and rows["t0"].gold == Gold.CORRECTION


def test_a_corrected_record_is_kept_though_its_logged_answer_was_bad(workbench: Workbench) -> None:
    cut = corrected(0, score=0.0)
    cut["response"]["choices"][0]["finish_reason"] = "length"
    workbench.records([cut, log_line(1, feedback={"score": 0.0}), log_line(2, feedback={"score": 1.0}), log_line(3)])
    summary = build_datasets(
        workbench.path("records"),
        None,
        workbench.path("base"),
        workbench.path("train"),
        workload="w",
        policy=ALL_EXAMINED,
        quality=QualityPolicy(min_feedback=0.5),
    )
    assert summary.eval_gold == {"correction": 1, "feedback": 1, "teacher": 1}


def test_a_score_says_nothing_where_nobody_says_what_is_praise() -> None:
    row = {"logged_answer": ""}
    assert gold_of(row, 5.0, None) is Gold.TEACHER
    assert gold_of(row, 5.0, 3.0) is Gold.FEEDBACK
    assert gold_of(row, math.nan, 3.0) is Gold.TEACHER


def test_a_correction_outranks_accepted_answers(workbench: Workbench) -> None:
    accepted = [{"get_weather": {"city": ["Bern"]}}]
    workbench.add([{**corrected(0), "accepted_answers": accepted}, log_line(1), log_line(2)], ALL_EXAMINED)
    row = next(row for row in read_eval_rows(workbench.path("base")) if row.trace_id == "t0")
    assert row.accepted is None and row.gold == Gold.CORRECTION


@pytest.mark.parametrize(
    ("correction", "reason"),
    [
        ({"role": "user", "content": "x"}, "unknown_role"),
        ({"content": None}, "empty_message"),
        ({"tool_calls": [{"type": "function", "function": {"arguments": "{}"}}]}, "malformed_tool_calls"),
        ({"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{"}}]}, "malformed_tool_arguments"),
        (7, "bad_field_type"),
    ],
)
def test_a_correction_that_is_no_answer_is_refused_by_name(correction: Any, reason: str) -> None:
    found = parse_record(orjson.dumps(corrected(0, correction)), max_bytes=MAX_BYTES, received_at=NOW)
    assert isinstance(found, Reject) and found.reason == reason and "feedback.correction" in found.detail


def test_a_correction_may_leave_its_role_out() -> None:
    found = parse_record(orjson.dumps(corrected(0, {"content": "Sunny."})), max_bytes=MAX_BYTES, received_at=NOW)
    assert isinstance(found, Record)
    assert orjson.loads(found.body)["feedback"]["correction"] == {"role": "assistant", "content": "Sunny."}


class TestCondemned:
    """Eval rows whose reference answer somebody disliked, and nobody corrected."""

    @pytest.mark.parametrize(
        ("scores", "condemned"),
        [
            ([None] * 4, 0),
            ([0.0, 0.0, 1.0, None], 2),
            ([0, 0.2, 1.0, 0.5], 1),
            # Where people also score below 0, 0 says neither good nor bad.
            ([-1.0, 0.0, 1.0, 0.0], 1),
            ([-0.5, -1, 1.0, None], 2),
            # Stars: nobody can tell from which of them on an answer is good.
            ([1, 2, 5, 5], 0),
        ],
    )
    def test_a_score_below_zero_or_of_zero_where_none_is_lower_condemns(
        self, workbench: Workbench, scores: list[float | None], condemned: int
    ) -> None:
        lines = [log_line(n, feedback=None if score is None else {"score": score}) for n, score in enumerate(scores)]
        summary = workbench.add(lines, ALL_EXAMINED)
        assert (summary.eval_condemned, summary.eval_rows) == (condemned, 4)
        assert orjson.loads(orjson.dumps(summary.to_json()))["eval_condemned"] == condemned

    def test_the_scale_is_that_of_the_whole_workload_not_of_the_eval_rows(self, workbench: Workbench) -> None:
        lines = [log_line(n, feedback={"score": 0.0}) for n in range(3)]
        lines.append(log_line(9, feedback={"score": -1.0}, source="imported"))
        assert workbench.add(lines, ALL_EXAMINED).eval_condemned == 0

    def test_what_was_corrected_or_has_accepted_answers_is_not_condemned(self, workbench: Workbench) -> None:
        accepted = log_line(1, feedback={"score": 0.0}, accepted_answers=[{"get_weather": {"city": ["1"]}}])
        lines = [corrected(0, score=0.0), accepted, log_line(2, feedback={"score": 0.0}), log_line(3)]
        assert workbench.add(lines, ALL_EXAMINED).eval_condemned == 1
