"""Deciding again as traffic arrives: what each look spends, and what holds between looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from flywheel_assets.core.decisions import Decision, Verdict, decide
from flywheel_assets.core.gates import Gate
from flywheel_assets.core.looks import Due, Look, Waiting, next_look, spent_by

GATES = [Gate("function_name_and_args", 0.1)]
LOOKS = (100, 200, 400)


def taken(decision: Decision) -> list[Look]:
    stored = orjson.loads(orjson.dumps(decision.to_json()))
    return [Look.from_json(look) for look in stored["evidence"]["looks_taken"]]


def test_little_of_alpha_is_spent_early_and_all_of_it_at_the_end() -> None:
    assert spent_by(LOOKS, 0.05) == pytest.approx(
        [2 * norm.sf(norm.ppf(0.975) / t**0.5) for t in (0.25, 0.5, 1.0)], rel=1e-12
    )
    assert spent_by(LOOKS, 0.05)[-1] == pytest.approx(0.05)


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.integers(1, 6000), max_size=12),
    st.floats(0.001, 0.4),
)
def test_all_looks_together_never_spend_more_than_alpha(looks: list[int], sizes: list[int], alpha: float) -> None:
    done: list[Look] = []
    for step, rows in enumerate(sorted(sizes)):
        due = next_look(looks, done, alpha=alpha, rows=rows, comparison=f"c{step}")
        if isinstance(due, Due):
            assert due.alpha >= 0 and rows >= looks[due.number - 1]
            done.append(Look(due.number, rows, f"c{step}", due.alpha, "keep", tuple(looks), alpha))
    assert sum(look.alpha for look in done) <= alpha + 1e-12
    assert len({look.number for look in done}) == len(done)


def test_before_the_first_look_nothing_is_decided(evidence: Any) -> None:
    rows = evidence.rows(90)
    decided = decide(evidence.compare(rows, evidence.arm(rows)), GATES, looks=LOOKS)
    assert (decided.verdict, decided.needed_rows) == (Verdict.INCONCLUSIVE, 10)
    assert "The next look is registered at 100 eval rows, and there are 90." in decided.reasons
    assert taken(decided) == []


def test_an_early_look_asks_for_more_than_the_same_rows_alone_would(evidence: Any) -> None:
    rows = evidence.rows(100)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: i < 2))
    assert decide(compared, GATES).verdict is Verdict.PROMOTE
    early = decide(compared, GATES, looks=LOOKS)
    assert early.verdict is Verdict.INCONCLUSIVE
    assert early.evidence["look"] == {"number": 1, "alpha": pytest.approx(spent_by(LOOKS, 0.05)[0])}


def test_between_looks_the_promotion_stands_while_its_model_is_the_one_compared(evidence: Any) -> None:
    rows = evidence.rows(260)
    first = decide(evidence.compare(rows[:210], evidence.arm(rows[:210])), GATES, looks=LOOKS)
    assert first.verdict is Verdict.PROMOTE and [look.number for look in taken(first)] == [2]
    worse = evidence.arm(rows, lambda i: i % 2 == 0)
    between = decide(evidence.compare(rows, worse), GATES, looks=LOOKS, earlier=taken(first))
    assert (between.verdict, between.candidate) == (Verdict.PROMOTE, "small")
    assert "Look 2, at 210 eval rows, promoted small (customized), and that stands." in between.reasons
    retrained = evidence.compare(rows, replace(worse, adapter_version="another"))
    unsettled = decide(retrained, GATES, looks=LOOKS, earlier=taken(first))
    assert (unsettled.verdict, unsettled.needed_rows) == (Verdict.INCONCLUSIVE, 140)


@pytest.mark.parametrize("recorded", [True, False])
def test_between_looks_a_promotion_ends_where_another_model_answers_under_the_same_name(
    evidence: Any, recorded: bool
) -> None:
    rows = evidence.rows(210)
    arm = replace(evidence.arm(rows), adapter_version=None, answered_by="that model" if recorded else None)
    first = decide(evidence.compare(rows, arm), looks=[200, 400])
    assert first.verdict is Verdict.PROMOTE
    more = evidence.rows(230)
    swapped = evidence.compare(more, replace(evidence.arm(more), adapter_version=None, answered_by="another"))
    between = decide(swapped, looks=[200, 400], earlier=taken(first))
    # What a release before did not write down cannot be held against it.
    assert between.verdict is (Verdict.INCONCLUSIVE if recorded else Verdict.PROMOTE)
    said = "Look 1, at 210 eval rows, said promote, of another model or prefix than today's."
    assert (said in between.reasons) is recorded


def test_between_looks_a_verdict_by_other_gates_is_said_to_be_one_though_nothing_was_promoted(evidence: Any) -> None:
    rows = evidence.rows(210)
    first = decide(evidence.compare(rows, evidence.arm(rows, lambda i: i % 2 == 0)), GATES, looks=[200, 400])
    assert first.verdict is Verdict.KEEP
    more = evidence.rows(230)
    others = [replace(GATES[0], limit=0.2)]
    between = decide(evidence.compare(more, evidence.arm(more)), others, looks=[200, 400], earlier=taken(first))
    assert between.verdict is Verdict.INCONCLUSIVE
    assert "Look 1, at 210 eval rows, said keep, by other gates than those of today." in between.reasons


def test_a_look_that_was_passed_over_leaves_its_share_to_the_next(evidence: Any) -> None:
    rows = evidence.rows(200)
    skipped = decide(evidence.compare(rows, evidence.arm(rows)), GATES, looks=LOOKS)
    assert skipped.evidence["look"]["alpha"] == pytest.approx(spent_by(LOOKS, 0.05)[1])


def test_another_gate_on_the_same_rows_is_no_new_look(evidence: Any) -> None:
    rows = evidence.rows(120)
    compared = evidence.compare(rows, evidence.arm(rows))
    first = decide(compared, GATES, looks=LOOKS)
    again = decide(compared, [Gate("function_name_and_args", 0.2)], looks=LOOKS, earlier=taken(first))
    assert again.evidence["look"] == first.evidence["look"] and len(taken(again)) == 1


def test_after_the_last_look_there_is_none_to_wait_for() -> None:
    last = Look(1, 100, "c", 0.05, "keep", (100,), 0.05)
    assert next_look((100,), [last], alpha=0.05, rows=500, comparison="d") == Waiting(None, last)


def test_taking_the_schedule_out_gives_nothing_back_of_what_its_looks_spent() -> None:
    taken = Look(1, 100, "first", 0.02, "inconclusive", (100, 200), 0.05)
    due = next_look((), [taken], alpha=0.05, rows=150, comparison="second")
    assert isinstance(due, Due) and due.alpha == pytest.approx(0.03)
    alone = replace(taken, number=2, comparison="second", alpha=0.03, registered=())
    assert next_look((), [taken, alone], alpha=0.05, rows=150, comparison="second") == Due(2, 0.03)
    assert next_look((), [taken, alone], alpha=0.05, rows=300, comparison="third") == Waiting(None, alone)
    # Without a schedule ever, each decision stands alone.
    never = replace(alone, alpha=0.05)
    assert next_look((), [never], alpha=0.05, rows=300, comparison="third") == Due(2, 0.05)


def test_without_registered_looks_a_repeated_promotion_carries_a_warning(evidence: Any) -> None:
    rows = evidence.rows(120)
    first = decide(evidence.compare(rows[:100], evidence.arm(rows[:100])), GATES)
    assert not any("full alpha" in reason for reason in first.reasons)
    second = decide(evidence.compare(rows, evidence.arm(rows)), GATES, earlier=taken(first))
    assert any("This is decision 2 on this workload, each taken at the full alpha" in reason for reason in second.reasons)


def test_a_look_that_would_spend_nothing_is_not_taken_at_the_full_alpha(evidence: Any) -> None:
    rows = evidence.rows(60)
    decided = decide(evidence.compare(rows, evidence.arm(rows)), GATES, looks=(30, 10_000_000))
    assert decided.verdict is Verdict.INCONCLUSIVE and decided.evidence["look"] is None
