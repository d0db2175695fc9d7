"""Sides and draws: nobody is examined on what it was trained on, today or ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.datasets import NotEnoughRecords, SplitPolicy, check_no_leakage, iter_training_rows, read_eval_rows
from flywheel_assets.core.datasets.assignment import KnownKeys, SplitTerms, assign_sides
from flywheel_assets.core.datasets.draw import balanced_draw, fill_evenly, training_window_end
from tests.core.datasets.workbench import Workbench, call, log_line, tool

POLICY = SplitPolicy(eval_size=50, min_total_records=2, eval_share=0.4, val_ratio=0.2)
# (session, prompt): few values each, so that rows share keys and link clusters in every way there is.
KEYED_ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 25)), min_size=1, max_size=60)


def manifest(workbench: Workbench, version: int | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(workbench.path("base", version) / "rows.parquet").to_pylist()
    return rows


def lines_of(rows: list[tuple[int, int]], start: int = 0) -> list[dict[str, Any]]:
    """Log lines with these sessions (0: none) and prompts; every answer is another."""
    return [
        log_line(
            start + n,
            session_id=f"s{session}" if session else None,
            messages=[{"role": "user", "content": f"Question {prompt}"}],
            answer=call("get_weather", {"city": f"{start + n}"}),
        )
        for n, (session, prompt) in enumerate(rows)
    ]


@given(first=KEYED_ROWS, second=KEYED_ROWS, third=KEYED_ROWS, seed=st.integers(0, 3), share=st.sampled_from([0.1, 0.5]))
def test_new_records_never_move_a_key_to_the_other_side(
    first: list[tuple[int, int]], second: list[tuple[int, int]], third: list[tuple[int, int]], seed: int, share: float
) -> None:
    terms = SplitTerms(random_seed=seed, eval_share=share, fixed_over=1)
    known = KnownKeys.none()
    rows: list[tuple[int, int]] = []
    sides: dict[int, int] = {}
    for added in (first, second, third):
        rows += added
        sessions = np.array([session and session + 1000 for session, _ in rows], np.uint64)
        prompts = np.array([prompt for _, prompt in rows], np.uint64)
        assignment, known = assign_sides(terms, known, prompts, sessions, np.zeros(len(rows), bool))
        now = dict(zip(known.keys.tolist(), known.sides.tolist(), strict=True))
        assert {key: now[key] for key in sides} == sides
        sides = now
        for row, (session, prompt) in enumerate(rows):
            both = {sides[prompt], sides[session + 1000]} if session else {sides[prompt]}
            assert assignment.links[row] == (len(both) == 2)


@settings(max_examples=15, deadline=None)
@given(first=KEYED_ROWS, second=KEYED_ROWS, seed=st.integers(0, 2), limit=st.sampled_from([None, 5]))
def test_new_records_never_move_a_row_between_train_and_eval(
    first: list[tuple[int, int]], second: list[tuple[int, int]], seed: int, limit: int | None
) -> None:
    policy = SplitPolicy(eval_size=50, min_total_records=1, eval_share=0.4, random_seed=seed, limit=limit)
    with TemporaryDirectory() as folder:
        workbench = Workbench(Path(folder))
        workbench.add(lines_of(first), policy)
        workbench.add(lines_of(second, start=len(first)), policy)
        before, after = manifest(workbench, 1), manifest(workbench, 2)
        for old, new in zip(before, after, strict=False):
            assert (old["row_id"], old["cluster"], old["side"]) == (new["row_id"], new["cluster"], new["side"])
            assert {old["split"], new["split"]} not in ({"train", "eval"}, {"validation", "eval"}, {"train", "validation"})
        assert check_no_leakage(workbench.path("base"), workbench.path("train")).passed


def test_a_session_and_a_prompt_stay_on_one_side(workbench: Workbench) -> None:
    rng = np.random.default_rng(0)
    rows = [(int(s), int(p)) for s, p in zip(rng.integers(0, 60, 300), rng.integers(1, 200, 300), strict=True)]
    workbench.add(lines_of(rows), POLICY)
    splits: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row, (session, prompt) in zip(manifest(workbench), rows, strict=True):
        if row["split"]:
            splits["prompt", prompt].add(row["split"])
            if session:
                splits["session", session].add(row["split"])
    assert {"train", "eval", "validation"} == set.union(*splits.values())
    assert all(len(held) == 1 for held in splits.values())


def test_a_row_that_links_both_sides_is_left_out_with_the_reason(workbench: Workbench) -> None:
    rows = [(session, session) for session in range(1, 30)]
    workbench.add(lines_of(rows), POLICY)
    sides = [row["side"] for row in manifest(workbench)]
    linking = (1 + sides.index("train"), 1 + sides.index("eval"))
    summary = workbench.add(lines_of([linking], start=29), POLICY)
    assert summary.left_out["links_both_sides"] == 1
    last = manifest(workbench)[-1]
    assert (last["split"], last["side"], last["reason"]) == (None, None, "links_both_sides")


def test_superseding_a_row_never_moves_those_it_was_linked_to(workbench: Workbench) -> None:
    linked = [pair for n in range(1, 30) for pair in ((n, n), (0, n))]
    workbench.add(lines_of(linked), POLICY)
    changed = [{**line, "id": f"t{2 * n}"} for n, line in enumerate(lines_of([(0, 100 + n) for n in range(29)], start=100))]
    assert workbench.add(changed, POLICY).left_out["superseded"] == 29
    before, after = manifest(workbench, 1), manifest(workbench, 2)
    assert [row["side"] for row in before[1::2]] == [row["side"] for row in after[1:58:2]]
    assert {"train", "eval"} == {row["side"] for row in before}


def test_the_eval_share_is_fixed_by_the_first_build(workbench: Workbench) -> None:
    policy = SplitPolicy(eval_size=20, min_total_records=50)
    first = workbench.add([log_line(n) for n in range(100)], policy)
    assert first.eval_share == 0.2
    second = workbench.add([log_line(n) for n in range(100, 400)], policy)
    assert second.eval_share == 0.2
    assert second.eval_rows == 20
    assert second.left_out["eval_side_not_drawn"] > 20


def test_a_young_workload_keeps_half_of_its_records_to_train_on(workbench: Workbench) -> None:
    summary = workbench.add([log_line(n) for n in range(60)], SplitPolicy(eval_size=100))
    assert summary.eval_share == 0.5
    assert summary.train_rows > 10


def test_zero_is_a_seed_and_another_seed_splits_otherwise(make_workbench: Callable[[str], Workbench]) -> None:
    lines = [log_line(n) for n in range(80)]
    zero = make_workbench("zero").add(lines, SplitPolicy(eval_size=20, random_seed=0))
    one = make_workbench("one").add(lines, SplitPolicy(eval_size=20, random_seed=1))
    assert (zero.random_seed, one.random_seed) == (0, 1)
    assert zero.base_version != one.base_version


def test_a_changed_seed_does_not_move_rows_and_is_told(workbench: Workbench) -> None:
    lines = [log_line(n) for n in range(80)]
    first = workbench.add(lines, SplitPolicy(eval_size=20, random_seed=0))
    second = workbench.add([], SplitPolicy(eval_size=20, random_seed=7))
    assert first.notes == ()
    assert (second.random_seed, second.base_version, second.train_version) == (0, first.base_version, first.train_version)
    assert "random_seed is 7, but 0 stays in force" in second.notes[0]


def test_too_few_records_are_refused_with_how_many_are_missing(workbench: Workbench) -> None:
    workbench.records([log_line(n) for n in range(37)] + [log_line(1, id="again")])
    with pytest.raises(NotEnoughRecords) as refusal:
        workbench.datasets(SplitPolicy(min_total_records=50))
    assert str(refusal.value) == (
        "workload 'w': 37 records, 50 needed (split.min_total_records). Ingest 13 more, or lower it in flywheel.yaml."
    )
    assert not workbench.path("base").exists()


def test_imported_records_are_trained_on_and_never_examined_on(workbench: Workbench) -> None:
    lines = [log_line(n, source="public-benchmark" if n % 2 else "traffic") for n in range(100)]
    summary = workbench.add(lines, POLICY)
    assert "train_only_source_on_eval_side" not in summary.left_out
    sources = {f"t{n}": lines[n]["source"] for n in range(100)}
    assert {sources[row.trace_id] for row in read_eval_rows(workbench.path("base"))} == {"traffic"}
    assert all(row["split"] != "eval" for row in manifest(workbench) if sources[row["trace_id"]] != "traffic")


def test_an_imported_copy_of_an_examined_prompt_is_left_out(workbench: Workbench) -> None:
    workbench.add(lines_of([(0, n) for n in range(1, 40)]), POLICY)
    examined = 1 + [row["side"] for row in manifest(workbench)].index("eval")
    copy = {**lines_of([(0, examined)], start=99)[0], "source": "import"}
    assert workbench.add([copy], POLICY).left_out["train_only_source_on_eval_side"] == 1


def test_sources_can_be_configured_to_be_examined_on(workbench: Workbench) -> None:
    lines = [log_line(n, source="public-benchmark") for n in range(60)]
    workbench.records(lines)
    with pytest.raises(NotEnoughRecords, match=r"train-only sources \(public-benchmark\).*train_only_sources: \[\]"):
        workbench.datasets(POLICY)
    summary = workbench.datasets(SplitPolicy(eval_size=10, train_only_sources=()))
    assert summary.eval_rows > 0
    assert summary.eval_sources == {"public-benchmark": summary.eval_rows}


def test_rows_whose_right_answer_is_no_call_are_kept(workbench: Workbench) -> None:
    no_call = {"role": "assistant", "content": "None of these fits."}
    lines = [log_line(n, answer=no_call if n % 3 == 0 else None) for n in range(120)]
    summary = workbench.add(lines, SplitPolicy(eval_size=30))
    assert summary.eval_classes["no_call"] > 5
    assert summary.train_classes["no_call"] > 20
    assert any(not row.reference.calls_tools for row in read_eval_rows(workbench.path("base")))


def test_without_a_limit_every_training_row_is_used(workbench: Workbench) -> None:
    summary = workbench.add([log_line(n) for n in range(200)], SplitPolicy(eval_size=20, limit=None))
    assert "over_limit" not in summary.left_out
    used = summary.train_rows + summary.validation_rows + summary.eval_rows
    assert used + summary.left_out.get("eval_side_not_drawn", 0) == 200


def test_a_limit_caps_training_rows_and_balances_them(workbench: Workbench) -> None:
    lines = [
        log_line(n, tools=[tool("common"), tool("other")], answer=call("other" if n % 10 == 0 else "common"))
        for n in range(400)
    ]
    for n, line in enumerate(lines):
        line["request"]["messages"] = [{"role": "user", "content": f"Do {n}"}]
    summary = workbench.add(lines, SplitPolicy(eval_size=40, limit=40))
    assert summary.train_rows == 40
    assert summary.train_classes == {"tool:common": 20, "tool:other": 20}
    assert summary.eval_classes["tool:other"] >= 2
    assert len(list(iter_training_rows(workbench.path("train")))) == 40


def test_an_unsupported_record_among_good_ones_is_left_out(workbench: Workbench) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]
    summary = workbench.add([log_line(n) for n in range(60)] + [log_line(99, messages=image)], POLICY)
    assert (summary.usable, summary.left_out["unsupported_content"]) == (60, 1)


def test_strategy_time_examines_on_rows_newer_than_all_it_trains_on(workbench: Workbench) -> None:
    order = np.random.default_rng(0).permutation(300).tolist()
    lines = [log_line(n, timestamp=float(when)) for n, when in enumerate(order)]
    summary = workbench.add(lines, SplitPolicy(eval_size=30, strategy="time"))
    times = defaultdict(list)
    for row in manifest(workbench):
        times[row["split"]].append(row["timestamp"])
    assert summary.training_window_end is not None
    assert max(times["train"] + times["validation"]) <= summary.training_window_end < min(times["eval"])
    assert summary.eval_rows > 5
    assert summary.train_rows > 50
    assert {"eval_side_before_exam_window", "after_training_window"} <= set(summary.left_out)


def test_strategy_time_moves_nothing_when_traffic_grows(workbench: Workbench) -> None:
    policy = SplitPolicy(eval_size=20, strategy="time", min_total_records=10)
    workbench.add([log_line(n) for n in range(100)], policy)
    workbench.add([log_line(n) for n in range(100, 500)], policy)
    for old, new in zip(manifest(workbench, 1), manifest(workbench, 2), strict=False):
        assert old["side"] == new["side"]


def test_the_exam_window_holds_the_newest_rows_but_never_more_than_half() -> None:
    times = np.arange(100.0)
    assert training_window_end(times, 10) == 79.0
    assert training_window_end(times, 80) == 49.0
    assert training_window_end(times[:1], 10) == 0.0


def test_draws_are_as_even_as_the_classes_allow() -> None:
    assert fill_evenly(np.array([100, 3, 50]), 43).tolist() == [20, 3, 20]
    assert fill_evenly(np.array([5, 5, 5]), 7).tolist() == [3, 2, 2]
    assert fill_evenly(np.array([2, 2]), 9).tolist() == [2, 2]


def test_rare_classes_are_pooled_into_one() -> None:
    classes = np.array([0] * 50 + list(range(1, 51)))
    order = np.arange(100.0)
    assert np.bincount(classes[balanced_draw(classes, order, 20, rare=5)])[0] == 10
    assert np.bincount(classes[balanced_draw(classes, order, 20, rare=1)])[0] == 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 90), st.integers(1, 6))
def test_a_larger_draw_contains_a_smaller_one_and_no_row_is_wasted(classes: list[int], size: int, rare: int) -> None:
    labels, order = np.array(classes), np.random.default_rng(0).random(len(classes))
    small = balanced_draw(labels, order, size, rare=rare)
    large = balanced_draw(labels, order, size + 5, rare=rare)
    assert len(small) == min(size, len(classes))
    assert set(small.tolist()) <= set(large.tolist())
