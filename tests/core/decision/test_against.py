"""Gates against somebody else than the teacher's logged answers."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import Comparison, compare
from flywheel_assets.core.decisions import Decision, InvalidEvidence, InvalidGate, Verdict, decide
from flywheel_assets.core.gates import Against, Gate, GateKind
from flywheel_assets.core.predictions import read_predictions, write_predictions
from flywheel_assets.core.rows import EvalRow, Prediction, Variant, WorkloadType

NAME = "function_name_and_args"
TOOLS = WorkloadType.TOOL_CALLING
INCUMBENT = Gate(NAME, 0.05, against=Against.INCUMBENT)
AGAIN = Gate(NAME, 0.05, against=Against.TEACHER)


def asked_again(evidence: Any, rows: list[EvalRow], disagrees: Any) -> Any:
    """The teacher's second answers."""
    predictions = [
        Prediction(row.row_id, evidence.wrong if disagrees(index) else row.reference, 5.0) for index, row in enumerate(rows)
    ]
    file = io.BytesIO()
    write_predictions(file, TOOLS, rows, predictions)
    return read_predictions(io.BytesIO(file.getvalue()))


def every_tenth(index: int) -> bool:
    return index % 10 == 0


def test_a_teacher_that_disagrees_with_itself_asks_no_more_of_others(evidence: Any) -> None:
    rows = evidence.rows(300)
    arm = evidence.arm(rows, every_tenth)
    compared = compare("router", TOOLS, rows, [arm], dataset_version="d1", teacher=asked_again(evidence, rows, every_tenth))
    assert compared.ceiling[NAME].value == pytest.approx(0.9)
    assert decide(compared, [Gate(NAME, 0.05)]).verdict is Verdict.KEEP
    decision = decide(compared, [AGAIN])
    assert decision.verdict is Verdict.PROMOTE
    assert "function_name_and_args against the teacher is 0.900 against 0.900" in " ".join(decision.reasons)
    assert Comparison.from_json(compared.to_json()).ceiling == compared.ceiling


def test_a_gate_against_a_teacher_that_was_not_asked_again_is_refused_with_what_to_do(evidence: Any) -> None:
    rows = evidence.rows(40)
    with pytest.raises(InvalidEvidence, match=r"teacher\.model"):
        decide(evidence.compare(rows, evidence.arm(rows)), [AGAIN])
    other = asked_again(evidence, evidence.rows(30), every_tenth)
    compared = compare("router", TOOLS, rows, [evidence.arm(rows)], dataset_version="d1", teacher=other)
    assert compared.ceiling == {}


def against_incumbent(evidence: Any, adapter: str | None, served: Any) -> Decision:
    rows = evidence.rows(300)
    old = replace(evidence.arm(rows, every_tenth, candidate="old"), adapter_version="a1")
    new = evidence.arm(rows, lambda index: index % 10 == 1, candidate="new")
    return decide(
        evidence.compare(rows, old, new), [replace(INCUMBENT, limit=0.15)], incumbent=served and (*served, adapter)
    )


def test_a_newcomer_is_held_against_the_model_that_serves(evidence: Any) -> None:
    decision = against_incumbent(evidence, "a1", ("old", Variant.CUSTOMIZED))
    found = {arm["candidate"]: arm["gates"][0] for arm in decision.evidence["arms"]}
    assert found["new"]["reference_score"] == pytest.approx(0.9) and found["new"]["difference"] == pytest.approx(0.0)
    assert decision.verdict is Verdict.PROMOTE
    assert decision.evidence["settings"]["incumbent"] == ["old", "customized", "a1"]


@pytest.mark.parametrize(
    ("adapter", "served", "said"),
    [("a0", ("old", Variant.CUSTOMIZED), "asks for more"), (None, None, "The teacher serves this workload")],
)
def test_without_the_incumbent_itself_a_gate_falls_back_to_the_stricter_reference(
    evidence: Any, adapter: str | None, served: Any, said: str
) -> None:
    decision = against_incumbent(evidence, adapter, served)
    assert decision.evidence["arms"][1]["gates"][0]["reference_score"] == 1.0
    assert any(said in reason for reason in decision.reasons)


def test_the_same_metric_may_be_held_against_several(evidence: Any) -> None:
    rows = evidence.rows(300)
    compared = evidence.compare(rows, evidence.arm(rows))
    assert decide(compared, [Gate(NAME, 0.05), INCUMBENT]).verdict is Verdict.PROMOTE
    with pytest.raises(InvalidGate, match="named twice"):
        decide(compared, [INCUMBENT, replace(INCUMBENT, limit=0.1)])


def test_where_people_corrected_the_teacher_it_loses_rows_like_anybody_else(evidence: Any) -> None:
    rows = [
        replace(row, gold="correction", logged=evidence.wrong) if every_tenth(index) else row
        for index, row in enumerate(evidence.rows(300))
    ]
    arm = evidence.arm(rows, every_tenth)
    compared = evidence.compare(rows, arm)
    assert compared.gold == {"correction": 30, "teacher": 270}
    assert compared.reference_scores[NAME].value == pytest.approx(0.9)
    assert "30 that people corrected" in compared.reference_note
    assert decide(compared, [Gate(NAME, 0.05)]).verdict is Verdict.PROMOTE
    assert decide(compared, [Gate(NAME, 0.95, GateKind.FLOOR)]).verdict is not Verdict.PROMOTE
    assert np.isnan(compared.reference["no_call"]).all()
