"""The leaderboard with its holes, and the report and pictures made from it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest

from flywheel_assets.core.comparison import ArmResult, Comparison
from flywheel_assets.core.decisions import decide
from flywheel_assets.core.plots import HistoryPoint, leaderboard_png, loss_curve_png, score_history_png, suites_png
from flywheel_assets.core.report import to_markdown
from flywheel_assets.core.report.examples import leading_arm, losing_examples
from flywheel_assets.core.rows import Variant

PNG = b"\x89PNG\r\n"
HOLE = ArmResult("remote", Variant.CUSTOMIZED, "skipped", "the endpoint cannot load | our adapter", derived_from="big")


@pytest.fixture(scope="module")
def compared(evidence: Any) -> Comparison:
    rows = evidence.rows(40, silent=10)
    strong, weak = evidence.arm(rows, lambda i: i == 7), evidence.arm(rows, lambda i: i % 2 == 0, variant=Variant.BASE)
    return evidence.compare(rows, weak, strong, HOLE)


def test_the_reference_is_scored_like_everybody_and_said_to_be_right_by_construction(compared: Comparison) -> None:
    # `valid_call` is about the tools of the requests, and these list none; `json_match` is about JSON.
    applying = compared.reference.keys() - {"valid_call", "json_match"}
    assert {metric: score.value for metric, score in compared.reference_scores.items()} == dict.fromkeys(applying, 1.0)
    assert compared.reference_scores["no_call"].n == 10
    assert "by construction" in compared.table()[0]["reason"]


def test_every_hole_stands_in_its_place_with_its_reason(compared: Comparison) -> None:
    assert [arm.label for arm in compared.holes] == ["remote (customized)"]
    line = compared.table()[3]
    assert (line["state"], line["reason"], line["n"], line["function_name"]) == ("skipped", HOLE.reason, 0, None)


def test_the_table_and_its_csv_say_the_same(compared: Comparison) -> None:
    table = compared.table()
    read = list(csv.DictReader(io.StringIO(compared.to_csv())))
    assert len({tuple(line) for line in table}) == 1 and list(read[0]) == list(table[0])
    assert [line["function_name_and_args"] for line in read] == ["1.0", "0.5", "0.975", ""]


def test_a_comparison_survives_json_with_its_meaning(compared: Comparison) -> None:
    read = Comparison.from_json(orjson.loads(orjson.dumps(compared.to_json())))
    assert read.data_version() == compared.data_version() and read.to_json() == compared.to_json()
    assert json.loads(json.dumps(compared.to_json()))["reference"]["no_call"][0] is None


def test_scores_are_put_into_the_order_of_the_eval_set(evidence: Any) -> None:
    rows = evidence.rows(30)
    shuffled = evidence.arm(rows[::-1], lambda i: i == 0)
    compared = evidence.compare(rows, shuffled)
    assert compared.arms[0].row_ids == compared.row_ids
    assert np.flatnonzero(compared.arms[0].scores["function_name_and_args"] == 0).tolist() == [29]


def test_the_meaning_is_scores_and_holes_not_latency_or_order(evidence: Any) -> None:
    rows = evidence.rows(30)
    one, other = evidence.arm(rows), evidence.arm(rows, lambda i: i == 3, variant=Variant.BASE)
    version = evidence.compare(rows, one, other).data_version()
    assert (
        evidence.compare(
            rows, evidence.arm(rows, lambda i: i == 3, variant=Variant.BASE, latency_ms=9.0), one
        ).data_version()
        == version
    )
    assert evidence.compare(rows, one).data_version() != version
    assert (
        evidence.compare(rows, one, replace(HOLE, state="failed")).data_version()
        != evidence.compare(rows, one, HOLE).data_version()
    )


def test_a_result_that_contradicts_itself_is_refused(evidence: Any) -> None:
    rows = evidence.rows(30)
    with pytest.raises(ValueError, match=r"small \(base\): state 'ok' without"):
        evidence.compare(rows, ArmResult("small", Variant.BASE, "ok"))
    with pytest.raises(ValueError, match="state 'failed' with"):
        evidence.compare(rows, replace(evidence.arm(rows), state="failed"))


def test_the_report_shows_scores_holes_losses_and_how_to_read_them(evidence: Any) -> None:
    rows = evidence.rows(40, silent=10, clusters=45)
    strong = evidence.arm(rows, lambda i: i == 7)
    compared = evidence.compare(rows, strong, HOLE, notes=("Rows are public benchmark requests.",))
    leader = leading_arm(compared, "function_name_and_args")
    assert leader is not None and leader.label == "small (customized)"
    examples = losing_examples(rows, strong.evaluation, "function_name_and_args")
    assert [(example.row_id, example.expected, example.answered) for example in examples] == [
        ("r7", 'f({"a": 1})', 'f({"a": 2})')
    ]
    text = to_markdown(compared, decide(compared), examples)
    assert "**Verdict: inconclusive, about" in text
    assert "| small | customized | 1.000 [" in text
    assert "remote (customized): skipped. the endpoint cannot load | our adapter" in text
    assert "remote (derived from big)" in text
    assert r"**What \| is \*it\*?** (row `r7`, score 0.00)" in text
    assert "right by construction" in text and "45 independent conversations" in text
    assert "Rows are public benchmark requests." in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert "| turns | single\\_turn | 0.975 [" in text


def test_errors_and_odd_characters_are_shown_and_break_nothing(evidence: Any) -> None:
    rows = evidence.rows(30)
    failing = evidence.arm(rows, errors=1)
    examples = losing_examples(rows, failing.evaluation, "function_name")
    assert examples[0].answered == "(error) timed out"
    odd = replace(examples[0], answered="`\ud83d\n\n# no heading", asked="a\n\nb" * 400)
    text = to_markdown(evidence.compare(rows, failing), None, [odd])
    assert text.encode() and "\n# no heading" not in text and " ..." in text


def test_pictures_are_drawn_also_where_there_is_little_to_draw(compared: Comparison, evidence: Any) -> None:
    assert leaderboard_png(compared).startswith(PNG) and leaderboard_png(compared, ["bfcl_ast"]).startswith(PNG)
    assert leaderboard_png(evidence.compare([], HOLE)).startswith(PNG)
    odd = [replace(row, suite_domain="$\\frac{") for row in evidence.rows(6)]
    for comparison in (compared, evidence.compare([], HOLE), evidence.compare(odd, evidence.arm(odd))):
        assert suites_png(comparison).startswith(PNG) and suites_png(comparison) == suites_png(comparison)
    assert loss_curve_png([(1, 2.0), (2, 1.0)], [(2, 1.2)]).startswith(PNG) and loss_curve_png([]).startswith(PNG)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    points = [HistoryPoint(start + timedelta(days=i), "f1", 0.5, 0.4, 0.6) for i in range(3)]
    assert score_history_png(points).startswith(PNG) and score_history_png([]).startswith(PNG)


def test_the_same_comparison_gives_the_same_picture(compared: Comparison) -> None:
    assert leaderboard_png(compared) == leaderboard_png(compared)
