"""What each kind of gate asks for, on which rows, and how it decides."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from scipy.stats import beta

from flywheel_assets.core.comparison import ArmResult, Comparison, compare
from flywheel_assets.core.decisions import InvalidEvidence, InvalidGate, Verdict, decide
from flywheel_assets.core.gates import COST, LATENCY, Gate, GateKind, default_gates
from flywheel_assets.core.predictions import build_report, read_predictions, write_predictions
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, Variant, WorkloadType

NAME = "function_name_and_args"
QUALITY = Gate(NAME, 0.1)


def with_margins(compared: Comparison, **margins: float | None) -> Comparison:
    """The comparison of an exam with which these default margins were registered."""
    drawn = {"eval_size": len(compared.row_ids), "looks": [], "draw": "proportional", "max_rows_per_conversation": 3}
    counts = {"eval_side_rows": 0, "not_drawn": 0, "over_limit": 0}
    return replace(compared, exam={**drawn, **counts, "default_margins": margins})


def floor(limit: float, **more: Any) -> Gate:
    return Gate(NAME, limit, GateKind.FLOOR, **more)


def of_arm(decision: Any, variant: str = "customized") -> Any:
    return next(arm for arm in decision.evidence["arms"] if arm["variant"] == variant)


def test_a_floor_is_met_where_the_exact_lower_bound_of_the_mean_is_above_it(evidence: Any) -> None:
    rows = evidence.rows(100)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: i < 10))
    bound = 1 - beta.ppf(0.95, 11, 90)
    assert decide(compared, [floor(bound - 0.001)]).verdict is Verdict.PROMOTE
    missed = decide(compared, [floor(bound + 0.001)])
    assert missed.verdict is Verdict.INCONCLUSIVE and missed.needed_rows > 0
    assert decide(compared, [floor(0.97)]).verdict is Verdict.KEEP
    gate = of_arm(missed)["gates"][0]
    assert (gate["kind"], gate["reference_score"], gate["score"]) == ("floor", 1.0, 0.9)
    assert f"more than {bound + 0.001:g} is asked for" in " ".join(missed.reasons)


def test_an_improvement_is_measured_against_the_base_variant_of_the_same_candidate(evidence: Any) -> None:
    rows = evidence.rows(200)
    base = evidence.arm(rows, lambda i: i % 2 == 0, variant=Variant.BASE)
    strong = evidence.compare(rows, base, evidence.arm(rows, lambda i: i < 4))
    gain = Gate(NAME, 0.3, GateKind.IMPROVEMENT)
    decided = decide(strong, [QUALITY, gain])
    assert (decided.verdict, decided.variant) == (Verdict.PROMOTE, Variant.CUSTOMIZED)
    found = of_arm(decided)["gates"][1]
    assert (found["kind"], found["score"], found["reference_score"]) == ("improvement", 0.98, 0.5)
    # The base variant has nothing to improve on and is judged by the other gates alone.
    assert [gate["kind"] for gate in of_arm(decided, "base")["gates"]] == ["non_inferior"]


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.2])
def test_a_variant_worse_than_its_perfect_base_is_never_promoted_in_whatever_order_the_gates_stand(
    evidence: Any, gain: float
) -> None:
    """A base that is right on every row gave NaN for the improvement, and NaN was lost among the p-values of the others."""
    rows = evidence.rows(300)
    base = evidence.arm(rows, variant=Variant.BASE, cost=9.0)
    compared = evidence.compare(rows, base, evidence.arm(rows, lambda i: i < 4, cost=1.0))
    gates = [QUALITY, Gate(NAME, gain, GateKind.IMPROVEMENT), floor(0.9), Gate(COST, 5.0, GateKind.BUDGET)]
    verdicts = set()
    for order in itertools.permutations(gates):
        decided = decide(compared, order)
        worse = of_arm(decided)
        assert not worse["passes"] and worse["p_adjusted"] == 1.0
        # What no number can stand for cannot be written either.
        assert orjson.loads(orjson.dumps(decided.to_json())) == decided.to_json()
        verdicts.add((decided.verdict, decided.candidate, decided.variant, decided.needed_rows))
    assert len(verdicts) == 1


def test_a_class_of_answers_too_rare_for_a_default_gate_is_named(evidence: Any) -> None:
    rows = evidence.rows(400, silent=5)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: i >= 400))
    decided = decide(with_margins(compared, function_name_and_args=0.05, no_call=None, answered=None))
    assert decided.verdict is Verdict.PROMOTE and [gate["metric"] for gate in of_arm(decided)["gates"]] == [NAME]
    assert any(
        reason.startswith("5 of 405 eval rows are too few for a default gate on `no_call`, `answered`")
        for reason in decided.reasons
    )
    named = decide(evidence.compare(rows, evidence.arm(rows)), [QUALITY])
    assert not any("too few for a default gate" in reason for reason in named.reasons)
    # A workload from before keeps the gates it had.
    assert decide(compared).verdict is not Verdict.PROMOTE


def test_default_margins_are_those_registered_with_the_exam_whatever_rows_were_drawn(evidence: Any) -> None:
    """One row more or less of a class must not narrow a gate, or cancel what was decided by the wider one."""

    def margins(silent: int, registered: float | None) -> dict[str, float]:
        rows = evidence.rows(100 - silent, silent=silent)
        drawn = with_margins(
            evidence.compare(rows, evidence.arm(rows)), function_name_and_args=0.05, no_call=registered, answered=registered
        )
        return {gate.metric: gate.limit for gate in default_gates(drawn)}

    assert margins(19, 0.1) == margins(21, 0.1) == {NAME: 0.05, "no_call": 0.1, "answered": 0.1}
    assert margins(19, 0.05)["no_call"] == 0.05
    # What was rare and is not any more gets the margin of today.
    assert margins(50, 0.5)["no_call"] == 0.05 and margins(50, None)["no_call"] == 0.05
    assert "no_call" not in margins(3, None)


def test_labels_and_documents_are_compared_as_a_whole_and_texts_of_agents_that_hardly_call_are_read() -> None:
    def gates(kind: WorkloadType, references: list[str], calls: int = 0) -> list[str]:
        rows = [
            EvalRow(f"r{i}", f"t{i}", f"c{i}", {"messages": []}, Answer(text), "single_turn")
            for i, text in enumerate(references)
        ]
        call = Answer(None, (ToolCall("f", "{}"),))
        rows += [EvalRow(f"x{i}", f"x{i}", f"x{i}", {"messages": []}, call, "single_turn") for i in range(calls)]
        answers = [Prediction(row.row_id, row.reference) for row in rows]
        file = io.BytesIO()
        write_predictions(file, kind, rows, answers)
        evaluation = read_predictions(io.BytesIO(file.getvalue()))
        arm = ArmResult(
            "m", Variant.BASE, "ok", report=build_report(kind, rows, answers), evaluation=evaluation, version="v"
        )
        compared = with_margins(compare("w", kind, rows, [arm], dataset_version="d"), function_name_and_args=None)
        return [gate.metric for gate in default_gates(compared)]

    labels = ["-1", "0", "1"] * 40
    assert gates(WorkloadType.GENERIC, labels) == ["f1", "exact_match"]
    prose = [f"The answer to number {i} is a long one." for i in range(120)]
    assert gates(WorkloadType.GENERIC, prose) == ["f1"]
    documents = [f'{{"id": {i}, "kind": "a"}}' for i in range(108)]
    assert gates(WorkloadType.GENERIC, documents + prose[:12]) == ["f1", "json_match"]
    assert gates(WorkloadType.TOOL_CALLING, documents, calls=1) == ["no_call", "answered", "json_match", "f1"]


def test_a_candidate_good_enough_before_training_shows_no_improvement(evidence: Any) -> None:
    rows = evidence.rows(200)
    same = evidence.compare(rows, evidence.arm(rows, variant=Variant.BASE), evidence.arm(rows))
    decided = decide(same, [QUALITY, Gate(NAME, 0.0, GateKind.IMPROVEMENT)])
    assert (decided.verdict, decided.variant) == (Verdict.PROMOTE, Variant.BASE)
    assert of_arm(decided)["passes"] is False


def test_an_improvement_over_a_base_that_was_not_evaluated_is_no_evidence(evidence: Any) -> None:
    rows = evidence.rows(60)
    with pytest.raises(InvalidEvidence, match="the base variant, and that of small was not"):
        decide(evidence.compare(rows, evidence.arm(rows)), [QUALITY, Gate(NAME, 0.1, GateKind.IMPROVEMENT)])


def test_zero_tolerance_says_what_no_failure_in_so_many_rows_still_allows(evidence: Any) -> None:
    rows = evidence.rows(100, silent=30)
    never = Gate("no_call", 0.0, GateKind.ZERO_TOLERANCE)
    clean = decide(evidence.compare(rows, evidence.arm(rows)), [QUALITY, never])
    assert clean.verdict is Verdict.PROMOTE
    observed = of_arm(clean)["observed"][0]
    assert (observed["met"], observed["rows"]) == (True, 30)
    # Nearly 3 / n: the "rule of three".
    assert observed["at_most"] == pytest.approx(1 - 0.05 ** (1 / 30))
    one = decide(evidence.compare(rows, evidence.arm(rows, lambda i: i == 110)), [QUALITY, never])
    assert one.verdict is Verdict.KEEP
    assert "no_call failed on 1 of 30 rows, and none is tolerated" in " ".join(one.reasons)


@pytest.mark.parametrize(
    ("metric", "limit", "verdict"),
    [
        (LATENCY, 50.0, Verdict.PROMOTE),
        (LATENCY, 49.0, Verdict.KEEP),
        (COST, 0.2, Verdict.PROMOTE),
        (COST, 0.19, Verdict.KEEP),
    ],
)
def test_a_budget_is_met_or_not_whatever_the_quality(evidence: Any, metric: str, limit: float, verdict: Verdict) -> None:
    rows = evidence.rows(100)
    compared = evidence.compare(rows, evidence.arm(rows, latency_ms=50.0, cost=0.2))
    decided = decide(compared, [QUALITY, Gate(metric, limit, GateKind.BUDGET)])
    assert decided.verdict is verdict
    assert of_arm(decided)["observed"][0]["value"] in (50.0, 0.2)


def test_a_cost_nobody_knows_meets_no_budget_and_fails_none(evidence: Any) -> None:
    rows = evidence.rows(100)
    with pytest.raises(InvalidEvidence, match=r"small \(customized\) has no such figure. Give the candidate a price"):
        decide(evidence.compare(rows, evidence.arm(rows)), [QUALITY, Gate(COST, 1.0, GateKind.BUDGET)])


def labelled(evidence: Any, rows: Any, fails: Any) -> Comparison:
    half = [replace(row, suite_turns="multi_turn") if i % 2 else row for i, row in enumerate(rows)]
    return evidence.compare(half, evidence.arm(half, fails))


def test_a_gate_may_ask_of_one_suite_what_the_whole_hides(evidence: Any) -> None:
    rows = evidence.rows(400)
    compared = labelled(evidence, rows, lambda i: i % 2 == 1 and i < 60)
    assert decide(compared, [floor(0.85)]).verdict is Verdict.PROMOTE
    decided = decide(compared, [floor(0.85), floor(0.85, suite="turns=multi_turn")])
    assert decided.verdict is not Verdict.PROMOTE
    whole, part = of_arm(decided)["gates"]
    assert (whole["n"], part["n"], part["suite"]) == (400, 200, "turns=multi_turn")
    assert part["score"] == 0.85 and "function_name_and_args (turns=multi_turn)" in " ".join(decided.reasons)


@pytest.mark.parametrize(
    ("gates", "error", "words"),
    [
        ([floor(0.8, suite="weather=rainy")], InvalidGate, "`suite` is written suite=label, and the suites are: turns"),
        ([floor(0.8, suite="turns")], InvalidGate, "`suite` is written suite=label"),
        ([floor(0.8, suite="turns=none_such")], InvalidEvidence, "it applies to no row of the eval set"),
        ([Gate(LATENCY, 100.0, GateKind.BUDGET)], InvalidGate, "no gate asks for quality"),
        ([Gate(NAME, 0.1, GateKind.IMPROVEMENT)], InvalidEvidence, "that of small was not"),
        ([QUALITY, Gate("speed", 9.0, GateKind.BUDGET)], InvalidGate, "a budget is latency_p95_ms or cost_per_1k_usd"),
        ([floor(1.2)], InvalidGate, "the floor is 1.2; it must lie between 0 and 1"),
    ],
)
def test_a_gate_that_cannot_be_judged_is_refused_by_name(
    evidence: Any, gates: list[Gate], error: type[Exception], words: str
) -> None:
    rows = evidence.rows(60)
    with pytest.raises(error, match=words):
        decide(evidence.compare(rows, evidence.arm(rows)), gates)


def test_a_gain_asked_for_is_planned_like_a_margin(evidence: Any) -> None:
    rows = evidence.rows(120)
    base = evidence.arm(rows, lambda i: i < 20, variant=Variant.BASE)
    decided = decide(evidence.compare(rows, base, evidence.arm(rows, lambda i: i < 12)), [
        Gate(NAME, 0.3), Gate(NAME, 0.05, GateKind.IMPROVEMENT)
    ])  # fmt: skip
    # The base passes the margin; what matters here is that the customized arm's gain is judged and bounded.
    gate = of_arm(decided)["gates"][1]
    assert gate["difference"] == pytest.approx(8 / 120) and gate["low"] < 0.05 < gate["high"]
    assert np.isclose(gate["margin"], -0.05)
