"""How large an exam is, planned from gates and planning values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.datasets.exam import ExamFacts
from flywheel_assets.core.exam_size import Planning, gate_shares, plan_exam, planned_needs
from flywheel_assets.core.gates import Against, Gate, GateKind, for_shares, gates_of_type
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.core.sample_size import needed_rows
from flywheel_assets.core.statistics import paired_test

TOOLS = WorkloadType.TOOL_CALLING
NAME = "function_name_and_args"
ALONE = ExamFacts(1000, {"tool:a": 600, "tool:b": 200, "no_call": 200}, {1: 1000})


def planning(**changed: Any) -> Planning:
    values = {"arms": 2, "alpha": 0.05, "power": 0.8, "expected_loss": 0.01, "expected_gain": 0.1}
    return Planning(**{**values, "expected_discordance": 0.1, "max_calls": 10_000, **changed})


def size(facts: ExamFacts = ALONE, gates: tuple[Gate, ...] = (Gate(NAME, 0.05),), **changed: Any) -> int:
    return plan_exam(gates, gate_shares(gates, TOOLS, facts.kinds), facts, planning(**changed)).eval_size


def test_an_exam_holds_the_rows_of_the_gate_that_takes_most_eval_rows() -> None:
    alone = needed_rows(0.01, 0.05, difference=-0.01, alpha=0.025, power=0.8)
    # 800 of 1,000 rows expect a call.
    assert size() == int(np.ceil(alone / 0.8))
    both = (Gate(NAME, 0.05), Gate("no_call", 0.05))
    # Both gates must pass, so each has less of the chance to fail; 200 of 1,000 rows expect no call.
    each = needed_rows(0.01, 0.05, difference=-0.01, alpha=0.025, power=0.9)
    assert size(gates=both) == 5 * each


def test_more_arms_less_alpha_more_power_and_narrower_margins_take_more_rows() -> None:
    assert size() < size(arms=6) and size() < size(alpha=0.01) and size() < size(power=0.95)
    assert size() < size(gates=(Gate(NAME, 0.03),)) and size() < size(expected_loss=0.02)


def test_an_exam_is_looked_at_once_when_it_is_complete() -> None:
    plan = plan_exam([Gate(NAME, 0.05)], {NAME: 1.0}, ALONE, planning())
    assert plan.looks == (plan.eval_size,) and f"{plan.eval_size:,} eval rows" in plan.note


def test_a_budget_of_calls_bounds_an_exam_and_says_what_would_be_needed() -> None:
    plan = plan_exam([Gate(NAME, 0.01)], {NAME: 1.0}, ALONE, planning(max_calls=600, expected_loss=0.001))
    assert plan.eval_size == 300 and "split.max_eval_calls" in plan.note and "would be needed" in plan.note


def test_a_margin_that_the_expected_loss_uses_up_is_named() -> None:
    plan = plan_exam([Gate(NAME, 0.01)], {NAME: 1.0}, ALONE, planning(expected_loss=0.01))
    assert f"never meets {NAME}" in plan.note and plan.eval_size >= 30


def test_gates_of_every_kind_are_planned_for() -> None:
    gates = [
        Gate(NAME, 0.9, GateKind.FLOOR),
        Gate(NAME, 0.05, GateKind.IMPROVEMENT),
        Gate("args_f1", 0.05, against=Against.TEACHER),
        Gate(NAME, 0.0, GateKind.ZERO_TOLERANCE),
        Gate(NAME, 0.1, suite="turns=multi_turn"),
    ]
    needs = planned_needs(gates, gate_shares(gates, TOOLS, ALONE.kinds), ALONE, planning())
    # Nothing is tested with zero tolerance, and nobody knows yet on how many rows a suite will be asked.
    assert [need.gate for need in needs] == [gate.label for gate in gates[:3]]
    assert all(need.missing_rows and not need.observed for need in needs)


def test_whether_a_gate_applies_is_asked_of_the_metric_itself() -> None:
    gates = gates_of_type(TOOLS)
    shares = gate_shares(gates, TOOLS, ALONE.kinds)
    assert shares[NAME] == 0.8 and shares["no_call"] == pytest.approx(0.2)
    text = gates_of_type(WorkloadType.GENERIC)
    # Which texts are JSON is not known of a class: it may be all of them.
    assert gate_shares(text, WorkloadType.GENERIC, {"text": 10}) == {"f1": 1.0, "json_match": 1.0}


def test_default_margins_ask_for_no_less_than_one_point_of_all_traffic() -> None:
    gates = gates_of_type(TOOLS)

    def widths(share: float) -> dict[str, float]:
        shares = {gate.label: 1.0 - share if gate.metric == NAME else share for gate in gates}
        return {gate.metric: gate.limit for gate in for_shares(gates, shares)}

    assert widths(0.5)["no_call"] == widths(0.2)["no_call"] == 0.05
    assert widths(0.19)["no_call"] == widths(0.1)["no_call"] == 0.1
    assert widths(0.06)["no_call"] == 0.2 and widths(0.02)["no_call"] == 0.5
    assert "no_call" not in widths(0.01) and "no_call" not in widths(0.0)
    assert widths(0.01)[NAME] == 0.05


sizes = st.dictionaries(st.integers(1, 3), st.integers(1, 400), min_size=1)


@settings(max_examples=40, deadline=None)
@given(sizes, st.sampled_from([0.05, 0.1]), st.integers(1, 4))
def test_a_candidate_without_a_loss_passes_on_the_rows_that_are_planned(
    counts: dict[int, int], margin: float, arms: int
) -> None:
    """The longest conversation counts: a planned exam must not turn out to be worth too little for a perfect model."""
    facts = ExamFacts(1, {"tool:a": 1}, counts)
    rows = plan_exam([Gate(NAME, margin)], {NAME: 1.0}, facts, planning(arms=arms, max_calls=10**9)).eval_size
    rng = np.random.default_rng(1)
    drawn = rng.choice(list(counts), p=np.array(list(counts.values())) / sum(counts.values()), size=rows)
    codes = np.repeat(np.arange(rows), drawn)[:rows]
    test = paired_test(np.ones(rows), np.ones(rows), codes, margin=margin, alpha=0.05 / arms)
    assert test.p_non_inferior <= 0.05 / arms and test.clusters_effective >= 0.85 * 30
