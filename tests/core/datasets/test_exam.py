"""The exam: a sample of the traffic, not of a few long conversations, on the terms of the first build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.core.datasets import ExamFacts, ExamPlan, SplitPolicy, build_datasets, read_eval_rows
from flywheel_assets.core.datasets.assignment import SPLIT_FILE, read_split
from flywheel_assets.core.datasets.draw import floor_rows, over_limit, proportional_draw, shares_by_lot, shares_taken
from flywheel_assets.core.datasets.exam import meaning_of, remarks_on
from flywheel_assets.core.datasets.strata import closed_labels
from flywheel_assets.core.rows import Json
from tests.core.datasets.workbench import Workbench, call, log_line, tool

TOOLS = [tool("often"), tool("seldom"), tool("never")]
COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
NEW_TERMS = ("draw", "max_rows_per_conversation", "eval_size", "looks", "note")


def traffic(start: int, count: int) -> list[Json]:
    """A tenth of the calls is to the seldom tool, a seventh of the rows needs none; four conversations hold a quarter."""
    lines = []
    for n in range(start, start + count):
        name = "seldom" if n % 10 == 0 else "often"
        answer = {"role": "assistant", "content": "None fits."} if n % 7 == 0 else call(name, {"city": str(n)})
        session = f"long{n % 16}" if n % 4 == 0 else f"s{n // 3}"
        asked = [{"role": "user", "content": f"Do {n}"}]
        lines.append(log_line(n, session_id=session, tools=TOOLS, answer=answer, messages=asked))
    return lines


def single(number: int, answer: dict[str, Any], **more: Any) -> Json:
    """A log line of a conversation of its own."""
    return log_line(number, tools=TOOLS, answer=answer, messages=[{"role": "user", "content": f"Do {number}"}], **more)


def planned(*plans: ExamPlan) -> tuple[Callable[[ExamFacts], ExamPlan], list[ExamFacts]]:
    """A planner that gives these plans in turn, and the facts it was asked with."""
    asked: list[ExamFacts] = []

    def plan(facts: ExamFacts) -> ExamPlan:
        asked.append(facts)
        return plans[len(asked) - 1]

    return plan, asked


def as_written_before(base: Path) -> None:
    """Make a split look like one of the release before: without the terms of the exam."""
    content = orjson.loads((base / SPLIT_FILE).read_bytes())
    (base / SPLIT_FILE).write_bytes(orjson.dumps({name: value for name, value in content.items() if name not in NEW_TERMS}))


def clusters_of(workbench: Workbench) -> Counter[str]:
    return Counter(row.cluster for row in read_eval_rows(workbench.path("base")))


# Proportional draws.


@given(COUNTS, st.integers(0, 500), st.integers(0, 3))
def test_every_stratum_is_within_one_row_of_its_share(counts: list[int], size: int, seed: int) -> None:
    lots = np.random.default_rng(seed).random(len(counts))
    strata = np.repeat(np.arange(len(counts)), counts)
    drawn = proportional_draw(strata, np.random.default_rng(seed + 1).random(len(strata)), size, lots)
    assert len(drawn) == len(set(drawn.tolist())) == min(size, len(strata))
    taken = np.bincount(strata[drawn], minlength=len(counts))
    assert (np.abs(taken - min(1.0, size / len(strata)) * np.array(counts)) < 1).all()


@given(COUNTS, st.integers(1, 200), st.integers(1, 40), st.integers(0, 3))
def test_a_larger_exam_contains_the_smaller_one_but_for_rounding(counts: list[int], size: int, more: int, seed: int) -> None:
    lots = np.random.default_rng(seed).random(len(counts))
    strata = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(seed + 1).random(len(strata))
    small = proportional_draw(strata, order, size, lots)
    large = set(proportional_draw(strata, order, size + more, lots).tolist())
    lost = Counter(strata[[row for row in small.tolist() if row not in large]].tolist())
    assert all(rows == 1 for rows in lost.values())


def test_rare_strata_get_their_rows_by_lot_and_not_none_at_all() -> None:
    # 40 tools whose share of the exam is a third of a row each, beside one with a remainder of .6.
    counts = np.array([*[10] * 40, 900])
    rows = np.array([shares_by_lot(counts, 43, np.random.default_rng(seed).random(41))[:40] for seed in range(400)])
    expected = 43 * 400 / 1300
    assert abs(rows.sum(axis=1).mean() - expected) < 0.1
    assert (rows.mean(axis=0) > 0.2).all() and (rows.mean(axis=0) < 0.5).all()


@given(st.lists(st.integers(0, 8), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 3))
def test_no_conversation_keeps_more_rows_than_the_limit_and_none_loses_more_than_it_must(
    groups: list[int], limit: int, seed: int
) -> None:
    labels = np.array(groups)
    left = np.bincount(labels[~over_limit(labels, np.random.default_rng(seed).random(len(labels)), limit)])
    held = np.bincount(labels)
    assert left.tolist() == np.minimum(held, limit)[: len(left)].tolist()


def test_an_exam_has_the_classes_of_the_traffic(workbench: Workbench) -> None:
    none = {"role": "assistant", "content": "None fits."}
    answers = [call("seldom")] * 2 + [none] * 6 + [call("often")] * 12
    lines = [single(n, answers[n % 20]) for n in range(1000)]
    summary = workbench.add(lines, SplitPolicy(eval_size=100, eval_share=0.4))
    on_side = Counter((["tool:seldom"] * 2 + ["no_call"] * 6 + ["tool:often"] * 12)[n % 20] for n in eval_side(workbench))
    for kind, rows in on_side.items():
        assert abs(summary.eval_classes[kind] - 100 * rows / on_side.total()) < 1
    assert summary.eval_rows == 100
    assert summary.exam["draw"] == "proportional"
    even = Workbench(workbench.folder / "even").add(lines, SplitPolicy(eval_size=100, eval_share=0.4, draw="balanced"))
    assert sorted(even.eval_classes.values()) == [33, 33, 34]
    assert even.train_version == summary.train_version


def test_single_and_several_turns_keep_their_shares(workbench: Workbench) -> None:
    def asked(number: int) -> list[Json]:
        first = {"role": "user", "content": f"Do {number}"}
        return (
            [first] if number % 4 else [first, {"role": "assistant", "content": "What?"}, {"role": "user", "content": "It"}]
        )

    workbench.add(
        [log_line(n, tools=TOOLS, answer=call("often"), messages=asked(n)) for n in range(800)],
        SplitPolicy(eval_size=80, eval_share=0.4),
    )
    turns = Counter(row.suite_turns for row in read_eval_rows(workbench.path("base")))
    assert abs(turns["multi_turn"] - 20) <= 4


def test_labels_of_a_text_workload_keep_their_shares(workbench: Workbench) -> None:
    lines = [
        log_line(n, tools=None, answer={"role": "assistant", "content": "Refund " if n % 5 == 0 else "billing"})
        for n in range(600)
    ]
    workbench.add(lines, SplitPolicy(eval_size=100, eval_share=0.4))
    side = [line["response"]["choices"][0]["message"]["content"] for line in lines]
    drawn = Counter(row.reference.content for row in read_eval_rows(workbench.path("base")))
    assert drawn.total() == 100
    sides = eval_side(workbench)
    expected = 100 * sum(side[n] == "Refund " for n in sides) / len(sides)
    assert abs(drawn["Refund "] - expected) < 1


def test_lengths_of_free_text_keep_their_shares(workbench: Workbench) -> None:
    lines = [
        log_line(n, tools=None, answer={"role": "assistant", "content": f"{n} " + "word " * (400 if n % 5 == 0 else 3)})
        for n in range(600)
    ]
    workbench.add(lines, SplitPolicy(eval_size=100, eval_share=0.4))
    sides = eval_side(workbench)
    expected = 100 * sum(n % 5 == 0 for n in sides) / len(sides)
    long = sum(len(row.reference.content or "") > 100 for row in read_eval_rows(workbench.path("base")))
    assert abs(long - expected) < 1


def eval_side(workbench: Workbench) -> list[int]:
    """The numbers of the log lines on the eval side."""
    rows = pq.read_table(workbench.path("base") / "rows.parquet").to_pylist()
    return [int(row["trace_id"][1:]) for row in rows if row["side"] == "eval"]


def test_labels_are_a_closed_set_only_where_they_come_again() -> None:
    few = np.repeat(np.arange(1, 4, dtype=np.uint64), 20)
    assert closed_labels(few)
    assert closed_labels(np.append(few, np.uint64(0)))
    assert not closed_labels(np.append(few, np.zeros(10, np.uint64)))
    assert not closed_labels(np.arange(1, 60, dtype=np.uint64))
    assert not closed_labels(np.ones(60, np.uint64))
    assert not closed_labels(np.zeros(0, np.uint64))


def test_segments_of_the_release_before_are_read_and_continued(workbench: Workbench, monkeypatch: Any) -> None:
    policy = SplitPolicy(eval_size=40, eval_share=0.4)
    answers = [{"role": "assistant", "content": label} for label in ("yes", "no")]
    lines = [log_line(n, tools=None, answer=answers[n % 2]) for n in range(200)]
    workbench.add(lines[:100], policy)
    [index] = (workbench.path("records") / "index").iterdir()
    pq.write_table(pq.read_table(index).drop(["label"]), index)
    summary = workbench.add(lines[100:], policy)
    assert summary.eval_rows == 40
    assert pq.read_table(next((workbench.path("records") / "index").iterdir())).column_names.count("label") == 1


# Few rows of one conversation.


def test_a_new_exam_holds_at_most_three_rows_of_a_conversation_and_says_so(workbench: Workbench) -> None:
    summary = workbench.add(traffic(0, 700), SplitPolicy(eval_size=400, eval_share=0.3))
    assert max(clusters_of(workbench).values()) == 3
    left = summary.left_out["eval_side_over_conversation_limit"]
    assert left == summary.exam["over_limit"] > 50
    assert summary.exam["max_rows_per_conversation"] == 3
    assert summary.exam["eval_side_rows"] == summary.eval_rows + left + summary.exam["not_drawn"]
    assert next(remarks_on(summary.exam)).startswith("At most 3 rows of one conversation were drawn, which left out")


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_the_limit_can_be_set(workbench: Workbench, limit: int) -> None:
    workbench.add(traffic(0, 700), SplitPolicy(eval_size=400, eval_share=0.3, max_rows_per_conversation=limit))
    largest = max(clusters_of(workbench).values())
    assert largest == limit if limit < 1000 else largest > 30


def test_an_even_draw_over_one_class_is_a_sample_and_needs_no_remark(workbench: Workbench) -> None:
    lines = [log_line(n, tools=None, answer={"role": "assistant", "content": f"Text {n}."}) for n in range(300)]
    summary = workbench.add(lines, SplitPolicy(eval_size=20, eval_share=0.4, draw="balanced"))
    assert summary.exam["not_drawn"] > 0
    assert list(remarks_on(summary.exam)) == []


def test_nothing_is_remarked_where_no_row_was_left_out(workbench: Workbench) -> None:
    summary = workbench.add([single(n, call("often")) for n in range(100)], SplitPolicy(eval_size=50, draw="balanced"))
    assert (summary.exam["over_limit"], summary.exam["not_drawn"], list(remarks_on(summary.exam))) == (0, 0, [])


# The chance of each row.


def test_chances_add_up_to_the_exam(workbench: Workbench) -> None:
    lines = [single(n, call("seldom" if n % 10 == 0 else "often")) for n in range(500)]
    for draw in ("proportional", "balanced"):
        bench = Workbench(workbench.folder / draw)
        summary = bench.add(lines, SplitPolicy(eval_size=60, eval_share=0.4, draw=draw))
        chances: dict[str, list[float]] = {}
        for row in read_eval_rows(bench.path("base")):
            assert row.draw_probability is not None and 0 < row.draw_probability <= 1
            chances.setdefault(row.reference.tool_calls[0].name, []).append(row.draw_probability)
        on_side = Counter("seldom" if n % 10 == 0 else "often" for n in eval_side(bench))
        for name, found in chances.items():
            assert len(set(found)) == 1
            # Every row of the stratum had this chance; the exam took as many as they add up to, but for rounding.
            assert abs(found[0] * on_side[name] - len(found)) < (1 if draw == "proportional" else 1e-9)
        assert summary.eval_rows == 60
        assert sum(found[0] * on_side[name] for name, found in chances.items()) == pytest.approx(60)


def test_a_row_of_a_long_conversation_had_a_smaller_chance(workbench: Workbench) -> None:
    lines = [single(n, call("often"), session_id="long" if n < 30 else f"s{n}") for n in range(200)]
    workbench.add(lines, SplitPolicy(eval_size=40, eval_share=0.9))
    rows = read_eval_rows(workbench.path("base"))
    long = [row.draw_probability for row in rows if int(row.trace_id[1:]) < 30]
    other = [row.draw_probability for row in rows if int(row.trace_id[1:]) >= 30]
    on_side = len(eval_side(workbench))
    assert other == pytest.approx([40 / (on_side - 27)] * len(other))
    assert 0 < len(long) <= 3
    assert long == pytest.approx([0.1 * 40 / (on_side - 27)] * len(long))


def test_chances_that_change_with_the_traffic_are_no_other_exam(workbench: Workbench) -> None:
    policy = SplitPolicy(eval_size=20, eval_share=0.3)
    first = workbench.add([single(n, call("often")) for n in range(300)], policy)
    chance = read_eval_rows(workbench.path("base"))[0].draw_probability
    versions = {first.base_version}
    for n in range(300, 306):
        versions.add(workbench.add([single(n, call("often"))], policy).base_version)
    assert read_eval_rows(workbench.path("base"))[0].draw_probability != chance
    assert len(versions) <= 2


def test_shares_taken_are_by_class() -> None:
    assert shares_taken(np.array([0, 0, 1, 1, 1, 1]), np.array([0, 2, 3, 4])).tolist() == [0.5, 0.5, *[0.75] * 4]


# Rows added to rare classes.


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 40), st.integers(1, 8), st.integers(0, 3))
def test_a_floor_fills_every_class_up_to_it_as_far_as_there_are_rows(
    labels: list[int], size: int, least: int, seed: int
) -> None:
    classes, order = np.array(labels), np.random.default_rng(seed).random(len(labels))
    drawn = proportional_draw(classes, order, size, np.random.default_rng(seed).random(7))
    added = floor_rows(classes, order, drawn, least)
    assert not set(added.tolist()) & set(drawn.tolist())
    held, taken = np.bincount(classes), np.bincount(classes[np.append(drawn, added)], minlength=max(labels) + 1)
    sampled = np.bincount(classes[drawn], minlength=max(labels) + 1)
    assert taken.tolist() == np.maximum(sampled, np.minimum(held, least)).tolist()


def test_rows_added_to_a_rare_class_are_labelled_and_leave_the_sample_as_it_was(workbench: Workbench) -> None:
    lines = [single(n, call("seldom" if n % 40 == 0 else "often")) for n in range(800)]
    policy = SplitPolicy(eval_size=60, eval_share=0.4)
    workbench.add(lines, policy)
    sample = [row.row_id for row in read_eval_rows(workbench.path("base"))]
    assert all(row.suite_draw is None for row in read_eval_rows(workbench.path("base")))

    summary = workbench.add([], replace(policy, rare_class_floor=6))
    rows = read_eval_rows(workbench.path("base"))
    assert [row.row_id for row in rows if row.is_sampled] == sample
    added = [row for row in rows if not row.is_sampled]
    seldom = sum(row.reference.tool_calls[0].name == "seldom" for row in rows)
    assert (seldom, {row.reference.tool_calls[0].name for row in added}) == (6, {"seldom"})
    assert summary.eval_suites["draw"] == {"sample": 60, "rare_class_floor": len(added)}
    assert summary.exam["floor_rows"] == len(added)
    on_side = sum(n % 40 == 0 for n in eval_side(workbench))
    assert [row.draw_probability for row in added] == pytest.approx([6 / on_side] * len(added))
    [remark] = remarks_on(summary.exam)
    assert remark.startswith(f"{len(added)} further rows of rare classes count in no mean and no gate")

    again = workbench.add([], policy)
    assert again.base_version != summary.base_version
    assert all(row.suite_draw is None for row in read_eval_rows(workbench.path("base")))


# The terms of the first build.


def test_an_exam_is_planned_once_and_its_plan_is_kept(workbench: Workbench) -> None:
    plan, asked = planned(ExamPlan(120, (60, 120), "120 eval rows show a margin of 0.05."))

    def build(lines: Sequence[Json], policy: SplitPolicy) -> Any:
        workbench.records(lines)
        return build_datasets(
            workbench.path("records"),
            workbench.path("base", workbench.versions - 1) if workbench.versions > 1 else None,
            workbench.path("base"),
            workbench.path("train"),
            workload="w",
            policy=policy,
            plan_exam=plan,
        )

    first = build(traffic(0, 700), SplitPolicy())
    assert first.eval_share == 0.3
    assert first.exam | {"share_of_records": 0, "eval_side_rows": 0, "not_drawn": 0, "over_limit": 0} == {
        "eval_size": 120,
        "auto": True,
        "looks": [60, 120],
        "draw": "proportional",
        "max_rows_per_conversation": 3,
        "share_of_records": 0,
        "eval_side_rows": 0,
        "not_drawn": 0,
        "over_limit": 0,
        "note": "120 eval rows show a margin of 0.05.",
        "default_margins": {},
        "floor_rows": 0,
        "uneven": False,
    }
    [facts] = asked
    assert facts.examinable == first.eval_rows + first.exam["not_drawn"]
    assert sum(size * count for size, count in facts.conversation_sizes.items()) == sum(facts.kinds.values())
    assert set(facts.kinds) == {"tool:often", "tool:seldom", "no_call"}
    assert sum(facts.kinds.values()) > facts.examinable

    again = build(traffic(700, 50), SplitPolicy())
    assert (again.exam["eval_size"], again.exam["looks"], again.exam["note"]) == (120, [60, 120], first.exam["note"])
    set_here = build([], SplitPolicy(eval_size=30, draw="balanced", max_rows_per_conversation=1))
    assert {name: set_here.exam[name] for name in ("eval_size", "auto", "looks", "draw", "max_rows_per_conversation")} == {
        "eval_size": 30,
        "auto": False,
        "looks": [],
        "draw": "balanced",
        "max_rows_per_conversation": 1,
    }
    assert set_here.eval_rows == 30
    back = build([], SplitPolicy())
    assert (back.base_version, back.exam) == (again.base_version, again.exam)
    assert len(asked) == 1


def test_a_number_at_the_first_build_stays_where_the_setting_is_taken_out(workbench: Workbench) -> None:
    first = workbench.add(traffic(0, 300), SplitPolicy(eval_size=40))
    assert first.eval_share == pytest.approx(40 / 300)
    second = workbench.add(traffic(300, 300), SplitPolicy())
    assert (second.exam["eval_size"], second.exam["looks"], second.eval_share) == (40, [], first.eval_share)


def test_another_eval_share_does_not_move_rows_and_is_told(workbench: Workbench) -> None:
    first = workbench.add(traffic(0, 300), SplitPolicy())
    second = workbench.add([], SplitPolicy(eval_share=0.5))
    assert (second.base_version, second.train_version) == (first.base_version, first.train_version)
    assert "an eval share of 0.5 is asked for, but 0.3 stays in force" in second.notes[0]


# What the release before this one made of the same traffic, recorded from its code.
BEFORE = ("804e11ae3945223f", "18d3f036b0510e7c")


@pytest.mark.parametrize("policy", [SplitPolicy(), SplitPolicy(eval_size=100), SplitPolicy(draw="balanced")])
def test_a_workload_that_began_before_keeps_its_exam_and_its_training_rows(
    workbench: Workbench, policy: SplitPolicy
) -> None:
    workbench.add(traffic(0, 300), SplitPolicy(eval_size=90))
    as_written_before(workbench.path("base"))
    summary = workbench.add(traffic(300, 400), policy)
    assert (summary.base_version, summary.train_version) == BEFORE
    assert max(clusters_of(workbench).values()) == 19
    exam = summary.exam
    assert (exam["eval_size"], exam["looks"], exam["draw"], exam["max_rows_per_conversation"]) == (100, [], "balanced", None)
    assert meaning_of(exam) == {}
    assert list(remarks_on(exam)) == [
        "Rows were drawn evenly over tools: means and gates are about that mix, not about the traffic."
    ]
    terms, _ = read_split(workbench.path("base"))
    assert (terms.draw, terms.eval_size, terms.looks) == ("balanced", None, ())


def test_a_workload_that_began_before_follows_what_is_set(workbench: Workbench) -> None:
    workbench.add(traffic(0, 300), SplitPolicy(eval_size=90))
    as_written_before(workbench.path("base"))
    changed = SplitPolicy(draw="proportional", max_rows_per_conversation=3)
    summary = workbench.add(traffic(300, 400), changed)
    assert summary.train_version == BEFORE[1]
    assert summary.base_version != BEFORE[0]
    assert max(clusters_of(workbench).values()) == 3
    assert meaning_of(summary.exam)["draw"] == "proportional"
    assert workbench.add([], SplitPolicy()).base_version == BEFORE[0]


@pytest.mark.parametrize("strategy", ["random", "time"])
def test_sides_are_the_same_whatever_is_drawn(make_workbench: Callable[[str], Workbench], strategy: str) -> None:
    sides = []
    for number, policy in enumerate(
        [
            SplitPolicy(eval_share=0.3, strategy=strategy),
            SplitPolicy(eval_share=0.3, strategy=strategy, draw="balanced", max_rows_per_conversation=1),
            SplitPolicy(eval_share=0.3, strategy=strategy, eval_size=7),
        ]
    ):
        bench = make_workbench(str(number))
        bench.add(traffic(0, 200), policy)
        bench.add(traffic(200, 200), policy)
        sides.append(sorted(eval_side(bench)))
    assert sides[0] == sides[1] == sides[2]
