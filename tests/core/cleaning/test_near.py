"""Near-duplicates: they share a side, templates do not, and nothing ever moves."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import record_lines
from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.core.cleaning.near import BANDS, compared_text, near_keys, rows_of
from flywheel_assets.core.datasets import SplitPolicy, build_datasets, check_no_leakage, update_records
from flywheel_assets.core.datasets.assignment import KnownKeys, Side, SplitTerms, assign_sides
from flywheel_assets.core.datasets.segments import RecordsSummary
from flywheel_assets.core.rows import Json
from tests.core.datasets.workbench import MAX_BYTES, NOW, log_line, stored
from tests.e2e.own_traffic import write_ticket_records

POLICY = CleaningPolicy()
SPLIT = SplitPolicy(eval_size=50, min_total_records=2, eval_share=0.4)
WORDS = [f"word{n}" for n in range(4000)]


def report(rng: random.Random, words: int = 120) -> list[str]:
    return [rng.choice(WORDS) for _ in range(words)]


def changed(rng: random.Random, words: list[str], edits: int) -> str:
    words = list(words)
    for _ in range(edits):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def jaccard(one: str, other: str) -> float:
    triples = [{tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (one.split(), other.split())]
    return len(triples[0] & triples[1]) / len(triples[0] | triples[1])


def shares_a_key(one: list[int], other: list[int]) -> bool:
    return bool(set(one) & set(other))


def line_of(number: int, text: str) -> Json:
    return log_line(number, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}])


def built(folder: Path, version: int, lines: list[Json]) -> tuple[RecordsSummary, Any]:
    before = version - 1
    records = update_records(
        folder / f"{before}-records" if before else None,
        [stored(lines)],
        folder / f"{version}-records",
        max_bytes=MAX_BYTES,
        received_at=NOW,
        cleaning=POLICY,
    )
    datasets = build_datasets(
        folder / f"{version}-records",
        folder / f"{before}-base" if before else None,
        folder / f"{version}-base",
        folder / f"{version}-train",
        workload="w",
        policy=SPLIT,
        previous_train=folder / f"{before}-train" if before else None,
    )
    return records, datasets


def rows_in(folder: Path, version: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / f"{version}-base" / "rows.parquet").to_pylist()
    return rows


def test_similar_texts_share_a_key_and_different_ones_do_not() -> None:
    rng = random.Random(0)
    found: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(150):
        words = report(rng)
        one = " ".join(words)
        for edits in (1, 12):
            other = changed(rng, words, edits)
            keys = near_keys([one, other], 0.9)
            found[jaccard(one, other) > 0.9].append(shares_a_key(*keys))
    assert np.mean(found[True]) > 0.9
    assert np.mean(found[False]) < 0.1


def test_case_and_punctuation_make_no_difference_and_short_texts_have_no_keys() -> None:
    one, other, short = near_keys(
        ["Where is the parcel that I sent on Monday", "where is the parcel, that I sent on monday?!", "Where is it?"], 0.9
    )
    assert one == other
    assert len(one) == BANDS
    assert short == []


def test_keys_are_the_same_for_ever() -> None:
    # Written down in split_keys.parquet: another release of the library must not change them unnoticed.
    text = "the quick brown fox jumps over the lazy dog near the river bank"
    assert (
        near_keys([text], 0.9)[0][:2] == near_keys(["something else of nine words is compared here too", text], 0.9)[1][:2]
    )
    assert near_keys([text], 0.9)[0][:2] == [9472831859711063288, 7340059926864941600]


def test_a_higher_similarity_takes_more_values_a_band() -> None:
    assert [rows_of(similarity) for similarity in (0.5, 0.8, 0.9, 0.95, 0.97)] == [2, 7, 16, 33, 55]


def test_only_what_users_and_tools_said_is_compared() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {}}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert compared_text(messages) == "Hello\n42"


def test_near_duplicates_stand_on_one_side_and_are_counted(tmp_path: Path) -> None:
    rng = random.Random(1)
    groups = [report(rng) for _ in range(40)]
    texts = [changed(rng, words, edits) for words in groups for edits in (0, 1, 1)]
    records, _ = built(tmp_path, 1, [line_of(n, text) for n, text in enumerate(texts)])
    rows = rows_in(tmp_path, 1)
    keys = near_keys(texts, 0.9)
    pairs = [(a, b) for a, b in itertools.combinations(range(len(texts)), 2) if shares_a_key(keys[a], keys[b])]
    assert len(pairs) > 100
    for a, b in pairs:
        assert {rows[a]["split"] or "", rows[b]["split"] or ""} not in ({"train", "eval"}, {"validation", "eval"})
    assert records.quality["near_clusters"] >= 38
    outcome = check_no_leakage(tmp_path / "1-base", tmp_path / "1-train", tmp_path / "1-records")
    assert outcome.passed, outcome.message


def test_the_leakage_check_sees_a_near_duplicate_on_the_other_side(tmp_path: Path) -> None:
    rng = random.Random(2)
    texts = [" ".join(report(rng)) for _ in range(60)]
    built(tmp_path, 1, [line_of(n, text) for n, text in enumerate(texts)])
    examined = next(n for n, row in enumerate(rows_in(tmp_path, 1)) if row["split"] == "eval")
    trained = next(n for n, row in enumerate(rows_in(tmp_path, 1)) if row["split"] == "train")
    texts[trained] = texts[examined] + " again"
    (tmp_path / "other").mkdir()
    update_records(
        None,
        [stored([line_of(n, text) for n, text in enumerate(texts)])],
        tmp_path / "other" / "records",
        max_bytes=MAX_BYTES,
        received_at=NOW,
        cleaning=POLICY,
    )
    outcome = check_no_leakage(tmp_path / "1-base", tmp_path / "1-train", tmp_path / "other" / "records")
    assert not outcome.passed
    assert outcome.details["near_duplicates"] == 1


def test_templated_traffic_stays_usable(tmp_path: Path) -> None:
    rng = random.Random(3)
    template = report(rng, 200)
    texts = [" ".join([*template[:100], f"value{n}", *template[100:]]) for n in range(300)]
    _, datasets = built(tmp_path, 1, [line_of(n, text) for n, text in enumerate(texts)])
    assert datasets.eval_rows == 50
    assert datasets.left_out.get("links_both_sides", 0) == 0
    assert check_no_leakage(tmp_path / "1-base", tmp_path / "1-train", tmp_path / "1-records").passed


@pytest.mark.parametrize("traffic", ["tickets", "synthetic"])
def test_our_own_traffic_is_nearly_all_usable(tmp_path: Path, traffic: str) -> None:
    if traffic == "tickets":
        lines = write_ticket_records(tmp_path / "t.jsonl", 600, workload="w").read_text().splitlines()
    else:
        lines = list(record_lines(600))
    records, datasets = built(tmp_path, 1, [{"id": f"t{n}", **json.loads(line)} for n, line in enumerate(lines)])
    assert records.quality["near_largest"] < 10
    used = datasets.eval_rows + datasets.train_rows + datasets.validation_rows + datasets.left_out["eval_side_not_drawn"]
    assert used >= 0.97 * records.records


KEYED = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 25), st.lists(st.integers(0, 9), min_size=3, max_size=3)))


@given(batches=st.lists(KEYED, min_size=1, max_size=4), seed=st.integers(0, 3))
def test_a_key_never_changes_sides_however_keys_are_shared(batches: Any, seed: int) -> None:
    terms = SplitTerms(random_seed=seed, eval_share=0.5, fixed_over=1)
    known, rows, before = KnownKeys.none(), [], {}
    for batch in batches:
        rows += batch
        if not rows:
            continue
        sessions = np.array([s and s + 1000 for s, _, _ in rows], np.uint64)
        prompts = np.array([p for _, p, _ in rows], np.uint64)
        near = np.array([[k and k + 2000 for k in keys] for _, _, keys in rows], np.uint64)
        assignment, known = assign_sides(terms, known, prompts, sessions, np.zeros(len(rows), bool), near)
        now = dict(zip(known.keys.tolist(), known.sides.tolist(), strict=True))
        assert {key: now[key] for key in before} == before
        before = now
        assert Side.UNKNOWN not in now.values()
        for row, (s, p, keys) in enumerate(rows):
            sides = {now[p], *([now[s + 1000]] if s else []), *(now[k + 2000] for k in keys if k)}
            assert assignment.links[row] == (len(sides) == 2)
            assert assignment.links[row] or {assignment.sides[row]} == sides


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_new_records_never_move_a_row_and_no_near_duplicate_straddles(seed: int) -> None:
    rng = random.Random(seed)
    groups = [report(rng, 80) for _ in range(12)]
    texts = [changed(rng, rng.choice(groups), rng.randrange(3)) for _ in range(60)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        built(folder, 1, [line_of(n, text) for n, text in enumerate(texts[:30])])
        built(folder, 2, [line_of(30 + n, text) for n, text in enumerate(texts[30:])])
        for old, new in zip(rows_in(folder, 1), rows_in(folder, 2), strict=False):
            assert (old["cluster"], old["side"]) == (new["cluster"], new["side"])
            assert {old["split"], new["split"]} not in ({"train", "eval"}, {"validation", "eval"}, {"train", "validation"})
        assert check_no_leakage(folder / "2-base", folder / "2-train", folder / "2-records").passed
