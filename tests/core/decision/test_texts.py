"""Turns without a call: a model that answers them with nothing, or with a call in disguise, is not promoted by defaults."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import ArmResult, Comparison, compare
from flywheel_assets.core.decisions import Decision, Verdict, decide
from flywheel_assets.core.gates import Gate, GateKind, default_gates
from flywheel_assets.core.predictions import build_report, read_predictions, write_predictions
from flywheel_assets.core.report import report_of, to_html, to_markdown
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, Variant, WorkloadType
from flywheel_assets.core.unread import unread_remark, unread_share

TOOLS, STRUCTURED, GENERIC = WorkloadType.TOOL_CALLING, WorkloadType.STRUCTURED, WorkloadType.GENERIC
OFFERED = {"type": "function", "function": {"name": "order_status", "parameters": {"type": "object"}}}
Says = Callable[[EvalRow], Answer]


def turns(calls: int = 100, texts: int = 100, *, empty: int = 0) -> list[EvalRow]:
    """Turns of an agent: some call a tool, some are answered in words, and some the teacher answered with nothing."""
    request = {"messages": [{"role": "user", "content": "Where is order 7?"}], "tools": [OFFERED]}
    references = [Answer(None, (ToolCall("order_status", f'{{"order": {i}}}'),)) for i in range(calls)]
    references += [Answer(f"Refunds take {i} business days.") for i in range(texts)] + [Answer("")] * empty
    return [EvalRow(f"r{i}", f"t{i}", f"c{i}", request, said, "single_turn") for i, said in enumerate(references)]


def documents(n: int = 400) -> list[EvalRow]:
    """Requests answered with an object of eight fields."""
    return [
        EvalRow(
            f"r{i}", f"t{i}", f"c{i}", {"messages": []}, Answer(f'{{"id": {i}, {FIELDS}, "total": {i}.5}}'), "single_turn"
        )
        for i in range(n)
    ]


FIELDS = ", ".join(f'"{name}": "x"' for name in "abcdef")


def compared(rows: Sequence[EvalRow], says: Says, kind: WorkloadType = TOOLS) -> Comparison:
    """The comparison of one model that answers so, through the real scoring and files."""
    predictions = [Prediction(row.row_id, says(row), latency_ms=10.0) for row in rows]
    file = io.BytesIO()
    write_predictions(file, kind, rows, predictions)
    evaluation = read_predictions(io.BytesIO(file.getvalue()))
    report = build_report(kind, rows, predictions)
    arm = ArmResult("small", Variant.BASE, "ok", report=report, evaluation=evaluation, version="v1")
    return compare("agent", kind, rows, [arm], dataset_version="d1")


def right(row: EvalRow) -> Answer:
    return row.reference


def texts_as(answer: Answer) -> Says:
    """Right where a call is due; everywhere else always this."""
    return lambda row: row.reference if row.reference.calls_tools else answer


def gate_metrics(comparison: Comparison) -> list[str]:
    return [gate.metric for gate in default_gates(comparison)]


def test_a_model_equal_to_the_teacher_is_promoted_by_the_default_gates() -> None:
    comparison = compared(turns(), right)
    assert gate_metrics(comparison) == ["function_name_and_args", "no_call", "answered"]
    assert decide(comparison).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    "answer",
    [
        Answer(""),
        Answer(None),
        Answer(" \n\u200b"),
        Answer("<think>\nThe user asks about refunds.\n</think>\n\n"),
        Answer("Refunds take 5 bus", cut_off="length"),
        Answer("Refunds take 5 days.", cut_off="content_filter"),
        Answer('<tool_call>\n{"name": "order_status", "arguments": {"order": 7}}\n</tool_call>'),
        Answer('{"name": "order_status", "arguments": {"order": 7}}'),
        Answer(None, (ToolCall("order_status", '{"order": 7}'),)),
    ],
)
def test_a_model_with_right_calls_and_no_answers_is_not_promoted(answer: Answer) -> None:
    decided = decide(compared(turns(), texts_as(answer)))
    assert decided.verdict is Verdict.KEEP
    assert decided.candidate is None


def test_what_the_teacher_left_unanswered_asks_nothing_of_the_model() -> None:
    rows = turns(empty=40)
    mute = compared(rows, lambda row: row.reference)
    assert mute.reference_scores["answered"].value == pytest.approx(100 / 140)
    assert decide(mute).verdict is Verdict.PROMOTE
    # Where nothing was due nothing is read either: no text is held against an empty one.
    talking = compared(
        rows, lambda row: row.reference if row.reference.calls_tools or row.reference.content else Answer("Hi")
    )
    assert decide(talking).verdict is Verdict.PROMOTE
    assert int(np.sum(~np.isnan(talking.reference["f1"]))) == 100


def test_a_model_with_a_wrong_field_in_eleven_percent_of_its_documents_is_not_promoted() -> None:
    def spoiled(row: EvalRow) -> Answer:
        number = int(row.row_id[1:])
        assert row.reference.content is not None
        return Answer(row.reference.content.replace('"a": "x"', '"a": "y"')) if number % 9 == 0 else row.reference

    worse = compared(documents(), spoiled, STRUCTURED)
    assert worse.evaluated[0].scores["exact_match"].mean() == pytest.approx(0.8875)
    # The mean over fields alone would have let it pass.
    assert decide(worse, [Gate("field_f1", 0.05)]).verdict is Verdict.PROMOTE
    assert decide(worse).verdict is Verdict.KEEP


def test_a_model_with_the_same_documents_in_another_form_is_promoted() -> None:
    def reordered(row: EvalRow) -> Answer:
        number = row.row_id[1:]
        return Answer(f'{{"total": {number}.50, {FIELDS}, "id": {number}.0}}')

    comparison = compared(documents(), reordered, STRUCTURED)
    assert gate_metrics(comparison) == ["field_f1", "exact_match"]
    assert decide(comparison).verdict is Verdict.PROMOTE


def test_an_empty_text_is_worth_nothing_in_a_text_workload() -> None:
    mute = compared(turns(0, 100), lambda _: Answer(""), GENERIC)
    assert mute.evaluated[0].scores["f1"].max() == 0.0
    assert decide(mute).verdict is Verdict.KEEP


def said_of_unread(decided: Decision) -> list[str]:
    return [reason for reason in decided.reasons if "no judge or gate read" in reason or "no gate read" in reason]


def test_text_that_nobody_reads_is_said_in_one_line_with_its_share() -> None:
    nonsense = compared(turns(96, 104), texts_as(Answer("Bananas are blue.")))
    decided = decide(nonsense)
    # Right calls, and an answer that is one: whether it is right nobody looked at.
    assert decided.verdict is Verdict.PROMOTE
    line = "52% of turns are text that no judge or gate read: configure a judge, or a gate on `f1`."
    assert said_of_unread(decided) == [line]
    assert decided.evidence["unread_share"] == 0.52
    assert to_markdown(nonsense, decided).count("52% of turns are text") == 1
    # At the top of the page, not only among the reasons that are folded away.
    assert to_html(report_of(nonsense, decided)).split("<main>")[0].count(line.replace("`", "")) == 1
    assert Decision.from_json(decided.to_json()) == decided


def test_a_gate_on_text_reads_the_text_turns_of_an_agent() -> None:
    gates = [Gate("function_name_and_args", 0.05), Gate("no_call", 0.05), Gate("f1", 0.05)]
    nonsense = decide(compared(turns(), texts_as(Answer("Bananas are blue."))), gates)
    assert nonsense.verdict is Verdict.KEEP
    same = decide(compared(turns(), right), gates)
    assert same.verdict is Verdict.PROMOTE
    for decided in (nonsense, same):
        assert decided.evidence["unread_share"] == 0.0 and not said_of_unread(decided)


def test_budgets_and_gates_on_other_rows_read_nothing() -> None:
    rows = [replace(row, suite_domain="refunds" if i % 2 else "orders") for i, row in enumerate(turns())]
    comparison = compared(rows, right)
    calls = Gate("function_name_and_args", 0.05)
    assert unread_share(comparison, [calls, Gate("latency_p95_ms", 900, GateKind.BUDGET)]) == 0.5
    assert unread_share(comparison, [calls, Gate("answered", 0.05), Gate("nemo_function_name", 0.05)]) == 0.5
    assert unread_share(comparison, [calls, Gate("exact_match", 0.2, suite="domain=refunds")]) == 0.25
    # A gain over the untrained model says nothing of the teacher's text.
    assert unread_share(comparison, [calls, Gate("f1", 0.0, GateKind.IMPROVEMENT)]) == 0.5


def test_gates_on_form_alone_leave_the_documents_unread() -> None:
    comparison = compared(documents(40), right, STRUCTURED)
    assert unread_share(comparison, [Gate("json_valid", 0.05)]) == 1.0
    assert unread_share(comparison, [Gate("field_f1", 0.05)]) == 0.0
    line = unread_remark(comparison, [Gate("json_valid", 0.05)])
    assert line == "100% of turns are text that no judge or gate read: configure a judge, or a gate on `exact_match`."


def test_text_among_documents_is_read_by_a_judge_alone() -> None:
    rows = [*documents(39), replace(documents(40)[39], reference=Answer("I cannot read this document."))]
    comparison = compared(rows, right, STRUCTURED)
    assert unread_remark(comparison, default_gates(comparison)) == (
        "2% of turns are text that no judge or gate read: configure a judge and a gate on `judge_similarity`."
    )


@pytest.mark.parametrize(("calls", "texts", "shown"), [(300, 1, "Less than 1%"), (1, 300, "More than 99%"), (8, 0, None)])
def test_a_share_is_never_rounded_to_nothing_or_all(calls: int, texts: int, shown: str | None) -> None:
    line = unread_remark(compared(turns(calls, texts), right), [Gate("function_name", 0.05)])
    assert line is None if shown is None else line is not None and line.startswith(f"{shown} of turns")


def test_a_judge_that_no_gate_listens_to_reads_nothing() -> None:
    rows = turns()
    arm = compared(rows, right).arms[0]
    verdicts = np.array([np.nan] * 100 + [1.0] * 100)
    kept: Any = io.BytesIO()
    predictions = [Prediction(row.row_id, row.reference) for row in rows]
    write_predictions(kept, TOOLS, rows, predictions, {**arm.scores, "judge_similarity": verdicts})
    result = ArmResult(
        "small",
        Variant.BASE,
        "ok",
        report=arm.report,
        evaluation=read_predictions(io.BytesIO(kept.getvalue())),
        version="v1",
    )
    judged = compare("agent", TOOLS, rows, [result], dataset_version="d1", judged=["judge_similarity"])
    assert gate_metrics(judged) == ["function_name_and_args", "no_call", "answered", "judge_similarity"]
    assert decide(judged).evidence["unread_share"] == 0.0
    deaf = decide(judged, [Gate("function_name_and_args", 0.05), Gate("no_call", 0.05)])
    assert said_of_unread(deaf) == ["50% of turns are text that no gate read: add a gate on `judge_similarity` or `f1`."]
