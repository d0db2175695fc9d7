"""What a verdict still takes: rows, conversations and records, said once for everybody."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import Verdict, decide
from flywheel_assets.core.gates import Gate
from flywheel_assets.core.needs import GateNeed, Supply, needs_of, rows_needed
from tests.core.decision.test_decisions import NAME, bare

GATE = Gate(NAME, 0.05)


def need(rows: int, missing: int | None) -> GateNeed:
    return GateNeed(NAME, 0.05, 0.0, 0.0, True, rows, float(rows), missing, missing)


def with_exam(comparison: Comparison, **exam: Any) -> Comparison:
    """The comparison with what its exam was drawn from."""
    drawn = {"eval_size": 100, "looks": [], "draw": "proportional", "max_rows_per_conversation": 3}
    counts = {
        "share_of_records": 0.3,
        "not_drawn": 0,
        "over_limit": 0,
        "floor_rows": 0,
        "uneven": False,
        "note": "",
        "auto": False,
    }
    return replace(comparison, exam={**drawn, **counts, **exam})


def test_the_gate_that_applies_to_few_rows_decides_how_many_eval_rows_are_wanted() -> None:
    # Ten more of a class that is a tenth of the rows come with a hundred.
    assert needs_of([need(90, 20), need(10, 10)], 100, None).eval_rows == 100
    assert needs_of([need(90, 200), need(10, 10)], 100, None).eval_rows == 223
    assert needs_of([need(90, 0), need(10, 0)], 100, None).eval_rows == 0


def test_rows_that_lie_unused_are_named_before_records_are_asked_for() -> None:
    supply = Supply(share=0.3, eval_side=1080, drawn=100, eval_size=100)
    found = rows_needed(300, 100, supply)
    assert (found.unused, found.records, found.eval_size) == (980, 0, 400)
    assert found.sentences() == ("Set split.eval_size to 400 or more: 980 that could be evaluated on lie unused.",)


def test_records_are_asked_for_at_the_share_that_became_eval_rows_so_far() -> None:
    found = rows_needed(210, 90, Supply(share=0.3, eval_side=90, drawn=90, eval_size=400))
    # Three records in ten are on the eval side: 210 more rows take 700 more records, and some to be on the safe side.
    assert found.eval_size is None and found.records == math.ceil((210 + 2 * math.sqrt(2 * 210 * 0.7)) / 0.3) == 815
    assert found.sentences() == ("Ingest about 815 more records.",)
    assert rows_needed(0, 90, Supply(0.3, 90, 90, 400)).sentences() == ()


def test_nobody_guesses_records_where_it_was_not_recorded_how_they_become_rows() -> None:
    found = rows_needed(50, 100, None)
    assert (found.eval_rows, found.records, found.eval_size, found.sentences()) == (50, None, None, ())


def test_a_decision_says_what_lies_unused_and_the_key_to_change() -> None:
    compared = with_exam(bare([np.ones(40)]), eval_size=40, not_drawn=1040)
    decided = decide(compared, [GATE])
    assert decided.verdict is Verdict.INCONCLUSIVE and decided.needed_records == 0
    assert decided.evidence["needs"]["unused"] == 1040
    assert any(f"Set split.eval_size to {40 + decided.needed_rows:,} or more" in reason for reason in decided.reasons)


def test_conversations_are_counted_at_what_they_are_worth() -> None:
    """Long conversations: many rows, few conversations. `plan` counted rows and asked for none, the test for thousands."""
    codes = np.repeat(np.arange(50), [40] * 10 + [1] * 40)
    decided = decide(bare([np.ones(codes.size)], clusters=codes), [GATE])
    (found,) = decided.evidence["needs"]["gates"]
    assert found["rows"] == 440 and found["conversations"] == pytest.approx(440**2 / (10 * 1600 + 40))
    assert found["missing_conversations"] >= 30 - found["conversations"] and found["missing_rows"] > 440


@pytest.mark.parametrize("longest", [1, 3])
def test_with_the_rows_that_are_asked_for_a_perfect_candidate_passes(longest: int) -> None:
    """Rows are added as they are asked for until it passes: that takes a step or two, and no endless row of them."""
    rng = np.random.default_rng(longest)
    sizes = rng.integers(1, longest + 1, 4000)
    codes = np.repeat(np.arange(4000), sizes)
    rows, asked = 25, 0
    while asked < 3:
        decided = decide(bare([np.ones(rows)], clusters=codes[:rows]), [GATE])
        if decided.verdict is Verdict.PROMOTE:
            break
        asked += 1
        rows += decided.needed_rows or 0
    assert decided.verdict is Verdict.PROMOTE and asked <= 2
