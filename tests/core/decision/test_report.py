"""The report: every verdict, every part, and nothing that a model or a record wrote can become markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import ArmResult
from flywheel_assets.core.decisions import Decision, Verdict, decide
from flywheel_assets.core.gates import Gate, GateKind
from flywheel_assets.core.looks import Look
from flywheel_assets.core.report import Example, Losses, arm_in_focus, gated_metrics, losses_of, report_of, to_html, to_svg
from flywheel_assets.core.report.amounts import usd
from flywheel_assets.core.report.gate_table import Standing, gate_table_of
from flywheel_assets.core.report.heat_map import heat_map_of
from flywheel_assets.core.report.scatter import HEIGHT, WIDTH, cost_against_quality, latency_against_quality
from flywheel_assets.core.rows import Variant
from tests.report_scene import COMPARED_AT, GATES, Scene, shop

WINNER = "qwen2.5-0.5b (customized)"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }}\ud83d\x00\u202e"
VOID = {"meta", "link", "br", "wbr", "circle", "line", "rect", "path"}


class Markup(HTMLParser):
    """Elements, attributes and text of a page; fails on one that does not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@cache
def scene(n: int = 520) -> Scene:
    return shop(n)


@cache
def decided(n: int = 520) -> Decision:
    return decide(scene(n).comparison, GATES)


def parts(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]+)</h2>", page)


def test_a_promotion_says_who_in_one_sentence_and_what_a_reader_needs_to_believe_it() -> None:
    page = scene().html_of(decided())
    text = Markup(page).text
    assert decided().verdict is Verdict.PROMOTE
    assert f"{WINNER} may replace the teacher: it meets every registered gate." in text
    assert parts(page) == [
        "What was asked",
        "Leaderboard",
        "Gates",
        "By suite",
        "Cost and latency against quality",
        f"Where {WINNER} still loses",
        "What would change the verdict",
        "Holes and caveats",
    ]
    assert "520 eval rows of 491 independent conversations" in text
    assert "function_name_and_args loses less than 0.05 against the reference" in text
    assert "99% less than the teacher's $2.85" in text
    assert "qwen2.5-1.5b (customized) is failed: the training ran out of memory" in text
    assert "expires 30 days after it was decided" in text


def test_every_score_of_the_leaderboard_stands_there_with_its_interval_the_best_first() -> None:
    board = report_of(scene().comparison, decided()).leaderboard
    assert board.places[0].label == WINNER and board.places[0].winner
    assert [place.is_ok for place in board.places] == [True] * 8 + [False]
    text = Markup(scene().html_of(decided())).text
    for place in board.places[:-1]:
        score = place.all_scores["function_name_and_args"]
        assert f"{score.value:.3f} {score.low:.3f} to {score.high:.3f}" in text


def test_marks_stand_where_their_scores_are() -> None:
    column = report_of(scene().comparison, decided()).leaderboard.columns[0]
    assert (column.at(column.low), column.at(1.0)) == (0.0, 100.0)
    assert column.at((1.0 + column.low) / 2) == pytest.approx(50.0)
    assert [(line.kind, line.value) for line in column.lines] == [("reference", 1.0), ("gate", 0.95)]


def test_an_undecided_comparison_has_a_report_without_gates_or_verdict() -> None:
    page = scene().html(decided=False)
    assert "8 of 9 variants were evaluated" in Markup(page).text
    assert "Gates" not in parts(page) and "What would change the verdict" not in parts(page)


def test_keep_and_inconclusive_have_their_own_sentence() -> None:
    weak = shop(better_by=-0.2)
    assert "Keep the teacher: every evaluated variant is shown to miss a gate." in Markup(weak.html()).text
    few = scene(150).html_of(decided(150))
    needed = decided(150).needed_rows
    assert f"about {needed:,} more eval rows would probably show whether {WINNER} may replace" in Markup(few).text


def test_gates_are_met_missed_or_not_settled_as_the_decision_found_them() -> None:
    for n in (520, 150):
        table = gate_table_of(decided(n))
        for arm, row in zip(decided(n).evidence["arms"], table.rows, strict=True):
            assert (row.standing is Standing.MET, row.standing is Standing.MISSED) == (arm["passes"], arm["is_worse"])
            cells = [cell.standing for cell in row.cells if cell]
            assert not arm["passes"] or set(cells) == {Standing.MET}
            assert arm["is_worse"] is (Standing.MISSED in cells)


def test_a_bound_is_shown_beside_what_was_asked_for() -> None:
    row = next(row for row in gate_table_of(decided()).rows if row.label == WINNER)
    assert row.cells[0] is not None and row.cells[0].test is not None
    assert row.cells[0].shows == f"loses {-row.cells[0].test.low:.3f} at most"
    assert row.cells[2] is not None and row.cells[2].test is not None
    assert row.cells[2].shows == f"at least {1 + row.cells[2].test.low:.3f}"
    assert gate_table_of(decided()).rows[0].cells[3] is None, "a base variant has nothing to improve on"


def test_the_limit_said_to_pass_does_pass_and_a_stricter_one_does_not() -> None:
    def passes_with(margin: float) -> bool:
        arms = decide(scene(150).comparison, [Gate("function_name_and_args", margin)]).evidence["arms"]
        (gate,) = next(arm["gates"] for arm in arms if f"{arm['candidate']} ({arm['variant']})" == WINNER)
        return bool(gate["p_non_inferior"] <= 0.05 / len(arms))

    outlook = report_of(scene(150).comparison, decided(150)).outlook
    assert outlook is not None
    margins = [gate.would_pass for gate in outlook.gates if gate.asks.startswith("loses") and gate.would_pass]
    (margin,) = (float(text.removeprefix("a margin of ")) for text in margins)
    assert passes_with(margin) and not passes_with(margin - 0.002)


def test_rows_still_needed_are_those_of_the_decision_and_of_no_gate_that_is_met() -> None:
    outlook = report_of(scene(150).comparison, decided(150)).outlook
    assert outlook is not None and outlook.arm == WINNER
    missing = decided(150).evidence["closest"]["missing"]
    shown = {gate.label: gate.more_rows for gate in outlook.gates if gate.more_rows is not None}
    assert shown == {label: rows for label, rows in missing.items() if label in shown} and shown
    improvement = next(gate for gate in outlook.gates if gate.asks.startswith("gains"))
    assert improvement.more_rows is None and improvement.cell.standing is Standing.MET


def test_between_looks_nothing_new_is_claimed() -> None:
    waiting = decide(scene().comparison, GATES, looks=(1000, 2000))
    text = Markup(scene().html_of(waiting)).text
    assert "Not decided now: no registered look is due" in text
    assert "The next look is registered at 1,000 eval rows; there are 520 now." in text
    assert "no verdict rests on it" in text and "no verdict rests on it" not in Markup(scene().html_of(decided())).text
    taken = Look(1, 400, "earlier", 0.01, "promote", (400, 1000), 0.05, ("qwen2.5-0.5b", "customized", None))
    standing = decide(scene().comparison, GATES, looks=(400, 1000), earlier=[taken])
    assert "promoted qwen2.5-0.5b (customized), and that stands" in Markup(scene().html_of(standing)).text


def test_the_heat_map_has_every_label_with_its_rows_and_says_where_they_are_few() -> None:
    heat = heat_map_of(scene().comparison)
    domain = next(group for group in heat.groups if group.suite == "domain")
    assert [row.label for row in domain.shown] == ["orders", "refunds", "shipping", "subscriptions", "gift_cards"]
    applies = ~np.isnan(scene().comparison.reference["function_name_and_args"])
    labels = np.array(scene().comparison.suites["domain"], dtype=object)
    assert domain.shown[1].rows == int(np.sum(applies & (labels == "refunds")))
    assert all(cell and 0 <= cell.shade <= 10 and not cell.few for row in domain.shown for cell in row.cells)


def test_dots_and_labels_stay_inside_the_picture_and_say_what_they_show() -> None:
    for picture in (cost_against_quality(scene().comparison, decided()), latency_against_quality(scene().comparison)):
        assert len(picture.dots) >= 8
        for dot in picture.dots:
            assert 0 <= dot.x <= WIDTH and 0 <= dot.y_high <= dot.y <= dot.y_low <= HEIGHT
            assert f"{dot.label}: " in picture.says
    cost = cost_against_quality(scene().comparison, decided())
    cheap, dear = (next(dot.x for dot in cost.dots if dot.label == name) for name in ("smollm2-135m (base)", "the teacher"))
    assert cheap < dear and [rule.text for rule in cost.upright] == ["budget"]


def test_where_no_price_is_known_the_report_says_so(evidence: Any) -> None:
    rows = evidence.rows(40)
    compared = evidence.compare(rows, evidence.arm(rows))
    picture = cost_against_quality(compared)
    assert picture.dots == () and picture.unknown == ("small (customized)", "the teacher")
    text = Markup(to_html(report_of(compared))).text
    assert "There is nothing to draw. Not known of small (customized), the teacher." in text
    assert "not known of any variant" in to_svg(picture)


def test_the_losses_are_of_the_winner_and_of_every_gated_metric() -> None:
    focus = arm_in_focus(scene().comparison, decided())
    assert focus is not None and focus.label == WINNER
    assert gated_metrics(decided()) == ("function_name_and_args", "no_call")
    losses = losses_of(scene().rows, scene().evaluations[WINNER], gated_metrics(decided()))
    for loss in losses:
        column = focus.scores[loss.metric]
        assert (loss.lost, loss.rows) == (int(np.sum(column < 1)), int(np.sum(~np.isnan(column))))
        assert 0 < len(loss.examples) <= 4 and all(example.score < 1 for example in loss.examples)


def test_nothing_that_was_said_becomes_markup(evidence: Any) -> None:
    # What lies in a Parquet file is whole characters; half a surrogate pair comes with answers and reasons.
    label = HOSTILE.replace("\ud83d", "")
    rows = [replace(row, suite_domain=f"{label}{i % 3}") for i, row in enumerate(evidence.rows(60))]
    arm = replace(evidence.arm(rows, lambda i: i < 4), candidate=HOSTILE)
    hole = ArmResult(HOSTILE, Variant.BASE, "failed", HOSTILE, derived_from=HOSTILE)
    compared = replace(evidence.compare(rows, arm, hole, notes=[HOSTILE]), workload=HOSTILE, reference_note=HOSTILE)
    decision = decide(compared)
    example = Example(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.0)
    page = to_html(
        report_of(compared, decision, [Losses(HOSTILE, 1, 60, (example,))], compared_at=COMPARED_AT, max_age_days=30)
    )
    page.encode("utf-8")
    found = Markup(page)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "img", "iframe", "object", "form", "base"})
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert page.count("alert(1)") > 10 and "{{ 7*7 }}" in found.text and "&lt;script&gt;" in page
    drawn = to_svg(latency_against_quality(compared))
    assert "<script" not in drawn and "&lt;" in drawn


def test_nothing_is_fetched_and_nothing_may_be() -> None:
    found = Markup(scene().html_of(decided()))
    addresses = [value for _, attributes in found.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(value and value.startswith(("#", "data:")) for value in addresses)
    targets = {attributes.get("id") for _, attributes in found.elements}
    assert {value[1:] for value in addresses if value and value.startswith("#")} <= targets
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "url(" not in scene().html_of(decided()) and "@import" not in scene().html_of(decided())


def test_a_table_has_headers_and_a_picture_has_words() -> None:
    found = Markup(scene().html_of(decided()))
    headers = [attributes for tag, attributes in found.elements if tag == "th"]
    assert headers and all("scope" in attributes for attributes in headers)
    pictures = [attributes for tag, attributes in found.elements if tag == "svg" and "viewbox" in attributes]
    assert len(pictures) == 2
    assert all(a["role"] == "img" and WINNER in (a["aria-label"] or "") for a in pictures)
    assert [tag for tag, _ in found.elements if tag == "h1"] == ["h1"]
    assert ("html", {"lang": "en"}) in found.elements


def test_a_thousand_labels_and_very_long_texts_still_make_a_page_that_opens(evidence: Any) -> None:
    rows = [replace(row, suite_domain=f"domain-{i:04d}-" + "x" * 200) for i, row in enumerate(evidence.rows(1000))]
    compared = evidence.compare(rows, evidence.arm(rows), evidence.arm(rows, lambda i: i % 2 == 0, variant=Variant.BASE))
    example = Example("r1", "word " * 200_000, "{}" * 100_000, "y" * 1_000_000, 0.0)
    page = to_html(report_of(compared, decide(compared), [Losses("function_name_and_args", 1, 1000, (example,))]))
    assert "976 more labels of domain, with fewer rows" in page
    assert "(1,000,000 characters in all)" in page
    assert len(page) < 1_500_000


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_rows_and_one_arm_make_a_report_too(evidence: Any, n: int) -> None:
    rows = evidence.rows(n)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: True, cost=0.0))
    Markup(to_html(report_of(compared, decide(compared), compared_at=COMPARED_AT, max_age_days=1)))


def test_without_any_evaluated_arm_the_holes_are_the_report(evidence: Any) -> None:
    compared = evidence.compare(evidence.rows(5), ArmResult("small", Variant.BASE, "failed", "no memory"))
    assert "small (base) is failed: no memory" in Markup(to_html(report_of(compared))).text


def test_zero_tolerance_and_budgets_are_told_in_their_own_words(evidence: Any) -> None:
    rows = evidence.rows(60, silent=40)
    arm = evidence.arm(rows, lambda i: i == 99, cost=0.5)
    gates = (
        Gate("function_name", 0.1),
        Gate("no_call", 0.0, GateKind.ZERO_TOLERANCE),
        Gate("cost_per_1k_usd", 0.4, GateKind.BUDGET),
    )
    text = Markup(to_html(report_of(compared := evidence.compare(rows, arm), decide(compared, gates)))).text
    assert "1 of 40 rows failed" in text
    assert "is at most $0.4 per 1,000" in text and "$0.500 per 1,000" in text


def test_evidence_read_back_from_its_file_gives_the_same_report() -> None:
    read = Decision.from_json(json.loads(json.dumps(decided().to_json())))
    assert report_of(scene().comparison, read) == report_of(scene().comparison, decided())


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "$0.00"), (0.034672, "$0.0347"), (0.4, "$0.400"), (2.85, "$2.85"), (1240.4, "$1,240")]
)
def test_money_has_three_digits_that_count(value: float, text: str) -> None:
    assert usd(value) == text
