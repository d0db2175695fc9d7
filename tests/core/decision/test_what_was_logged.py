"""What the traffic says beside its answers: how long the teacher took, and who disliked what is now the reference."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import orjson
import pytest

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import decide
from flywheel_assets.core.report import report_of, to_html, to_markdown
from flywheel_assets.core.report.scatter import latency_against_quality

LATENCY = {"p50": 840.0, "p95": 2310.0, "records": 912}
DISLIKED = (
    "66% of the eval rows' reference answers (40 of 61) were disliked by a person (feedback below 0, or of 0 where none is "
    "lower): a model that agrees with them is no better. Set cleaning.min_feedback to leave them out, or log corrections."
)


@pytest.fixture(scope="module")
def compared(evidence: Any) -> Comparison:
    rows = evidence.rows(61)
    found: Comparison = evidence.compare(rows, evidence.arm(rows))
    return found


def test_logged_latency_stands_in_the_row_of_the_reference(compared: Comparison) -> None:
    timed = replace(compared, reference_latency_ms=LATENCY)
    assert (timed.table()[0]["latency_p50_ms"], timed.table()[0]["latency_p95_ms"]) == (840.0, 2310.0)
    read = list(csv.DictReader(io.StringIO(timed.to_csv())))
    assert (read[0]["latency_p50_ms"], read[0]["latency_p95_ms"]) == ("840.0", "2310.0")
    assert compared.table()[0]["latency_p50_ms"] is None


def test_reports_show_logged_latency_and_say_that_it_was_measured_elsewhere(compared: Comparison) -> None:
    timed = replace(compared, reference_latency_ms=LATENCY)
    caveat = "as logged in production (912 records): another network, machine and load than the candidates were measured at"
    markdown = to_markdown(timed)
    assert "| 840 | 2310 | 61 |" in markdown and caveat in markdown
    page = to_html(report_of(timed))
    assert '<td class="number">840</td><td class="number">2,310</td>' in page and caveat in page
    assert [dot.label for dot in latency_against_quality(timed).dots if dot.kind == "reference"] == [
        "the teacher, as logged"
    ]
    assert caveat not in to_markdown(compared) and caveat not in to_html(report_of(compared))


def test_logged_latency_is_no_part_of_what_a_comparison_means(compared: Comparison) -> None:
    timed = replace(compared, reference_latency_ms=LATENCY)
    assert timed.data_version() == compared.data_version()
    assert decide(timed).data_version() == decide(compared).data_version()
    assert Comparison.from_json(orjson.loads(orjson.dumps(timed.to_json()))).reference_latency_ms == LATENCY


def test_a_decision_says_how_many_reference_answers_somebody_disliked(compared: Comparison) -> None:
    disliked = replace(compared, condemned_gold={"rows": 40, "of": 61})
    decision = decide(disliked)
    assert DISLIKED in decision.reasons
    assert decision.evidence["condemned_gold"] == {"rows": 40, "of": 61}
    assert decision.verdict is decide(compared).verdict
    assert DISLIKED in to_markdown(disliked)
    assert DISLIKED.replace("'", "&#39;") in to_html(report_of(disliked))
    assert Comparison.from_json(orjson.loads(orjson.dumps(disliked.to_json()))).condemned_gold == {"rows": 40, "of": 61}


def test_feedback_that_comes_later_decides_anew(compared: Comparison) -> None:
    assert replace(compared, condemned_gold={"rows": 40, "of": 61}).data_version() != compared.data_version()


def test_where_nobody_disliked_anything_nothing_is_said_and_nothing_changes(compared: Comparison) -> None:
    nobody = replace(compared, condemned_gold={"rows": 0, "of": 61})
    assert nobody.data_version() == compared.data_version()
    assert decide(nobody).to_json() == decide(compared).to_json()
    assert "disliked" not in to_markdown(nobody)


def test_a_comparison_of_an_earlier_version_is_read(compared: Comparison) -> None:
    old = compared.to_json()
    del old["condemned_gold"], old["reference_latency_ms"]
    read = Comparison.from_json(old)
    assert (read.condemned_gold, read.reference_latency_ms) == ({}, {})
    assert read.data_version() == compared.data_version()
    assert read.table()[0]["latency_p50_ms"] is None
