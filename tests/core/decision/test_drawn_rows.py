"""How the eval rows were drawn, as comparisons, decisions and reports tell it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import decide
from flywheel_assets.core.report import report_of, to_html, to_markdown
from flywheel_assets.core.rows import RARE_CLASS_FLOOR, SAMPLE, Json

CAPPED = (
    "At most 3 rows of one conversation were drawn, which left out 33% of the turns: scores are about conversations so "
    "capped, not about every turn. A model that fails on long conversations may pass: raise "
    "split.max_rows_per_conversation if they matter."
)
EVEN = "Rows were drawn evenly over tools: means and gates are about that mix, not about the traffic."
EXAM: Json = {
    "eval_size": 40,
    "auto": True,
    "looks": [20, 40],
    "draw": "proportional",
    "max_rows_per_conversation": 3,
    "eval_side_rows": 90,
    "not_drawn": 20,
    "over_limit": 30,
    "note": "",
    "uneven": True,
}
BEGAN_BEFORE: Json = {**EXAM, "looks": [], "draw": "balanced", "max_rows_per_conversation": None, "over_limit": 0}


@pytest.fixture(scope="module")
def compared(evidence: Any) -> Comparison:
    rows = evidence.rows(40)
    return evidence.compare(rows, evidence.arm(rows))


@pytest.mark.parametrize(
    ("exam", "remarks"),
    [
        ({}, set()),
        (EXAM, {CAPPED}),
        ({**EXAM, "over_limit": 0}, set()),
        ({**EXAM, "draw": "balanced"}, {CAPPED, EVEN}),
        ({**EXAM, "draw": "balanced", "not_drawn": 0}, {CAPPED}),
        (BEGAN_BEFORE, {EVEN}),
        ({**BEGAN_BEFORE, "uneven": False}, set()),
    ],
)
def test_decision_and_reports_say_what_the_draw_makes_scores_be_about(
    compared: Comparison, exam: Json, remarks: set[str]
) -> None:
    drawn = replace(compared, exam=exam)
    decision = decide(drawn)
    for remark in (CAPPED, EVEN):
        told = remark in remarks
        assert (remark in decision.reasons) is told
        assert (f"- {remark}" in to_markdown(drawn).splitlines()) is told
        assert (remark in to_html(report_of(drawn, decision))) is told


def test_how_rows_were_drawn_survives_json_and_is_absent_from_older_comparisons(compared: Comparison) -> None:
    drawn = replace(compared, exam=EXAM)
    read = Comparison.from_json(orjson.loads(orjson.dumps(drawn.to_json())))
    assert (read.exam, read.data_version()) == (EXAM, drawn.data_version())
    older = compared.to_json()
    del older["exam"]
    assert Comparison.from_json(older).exam == {}


def test_a_comparison_means_another_thing_on_other_terms_and_not_on_other_counts(compared: Comparison) -> None:
    drawn = replace(compared, exam=EXAM).data_version()
    assert replace(compared, exam={**EXAM, "not_drawn": 21, "eval_side_rows": 91, "note": "x"}).data_version() == drawn
    other = [{"eval_size": 41}, {"looks": [40]}, {"draw": "balanced"}, {"max_rows_per_conversation": 4}]
    assert len({drawn, *(replace(compared, exam={**EXAM, **terms}).data_version() for terms in other)}) == 5


def test_a_workload_that_began_before_keeps_the_meaning_its_comparisons_had(compared: Comparison) -> None:
    # `{}` is how a comparison of the release before is read.
    assert replace(compared, exam=BEGAN_BEFORE).data_version() == replace(compared, exam={}).data_version()


def test_rows_added_to_rare_classes_are_in_no_mean_and_no_gate_but_in_the_reports_of_the_arms(evidence: Any) -> None:
    rows = evidence.rows(40, silent=10)
    added = [replace(row, row_id=f"x{row.row_id}", cluster=f"x{row.cluster}") for row in rows[:5]]
    labelled = [replace(row, suite_draw=SAMPLE) for row in rows] + [
        replace(row, suite_draw=RARE_CLASS_FLOOR) for row in added
    ]
    # Every added row is answered wrong, and one of the sample.

    def wrong(at: int) -> bool:
        return at == 3 or at >= 50

    with_floor, without = evidence.arm(labelled, wrong), evidence.arm(rows, wrong)

    compared, plain = evidence.compare(labelled, with_floor), evidence.compare(rows, without)
    assert compared.data_version() == plain.data_version()
    assert decide(compared).to_json() == decide(plain).to_json()
    told = report_of(compared).heat_map
    [group] = [group for group in told.groups if group.suite == "draw"]
    assert {row.label: row.rows for row in group.shown} == {"rare_class_floor": 5, "sample": 40}
    draw = with_floor.report.suites.pop("draw")
    assert (draw["sample"].n, draw["sample"].scores) == (50, without.report.scores)
    assert (draw["rare_class_floor"].n, draw["rare_class_floor"].scores["function_name_and_args"].value) == (5, 0.0)
    assert with_floor.report == without.report
