"""Checks: each passes on what was built, and fails on what it is there for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from flywheel_assets.core.datasets import (
    SplitPolicy,
    check_enough_records,
    check_no_leakage,
    check_schema_valid,
    check_well_formed,
    training_files,
)
from flywheel_assets.core.datasets.rendering import eval_lines, read_eval_line, training_line_of
from tests.core.datasets.workbench import Workbench, log_line

POLICY = SplitPolicy(eval_size=20, min_total_records=2, eval_share=0.3, val_ratio=0.3)


@pytest.fixture
def built(workbench: Workbench) -> Workbench:
    workbench.add([log_line(n) for n in range(100)], POLICY)
    return workbench


def eval_rows(base: Path) -> list[dict[str, Any]]:
    return [read_eval_line(line) for line in (base / "eval_data.jsonl").read_bytes().splitlines()]


def test_every_check_passes_on_what_was_built(built: Workbench) -> None:
    base, train = built.path("base"), built.path("train")
    assert check_well_formed(built.path("records")).passed
    assert check_enough_records(base, train, min_total_records=100).passed
    assert check_no_leakage(base, train).passed
    outcome = check_schema_valid(base, train)
    assert outcome.passed
    assert outcome.details["rows_read"] == 20 + sum(
        path.read_bytes().count(b"\n") for split in ("train", "validation") for path in training_files(train, split)
    )


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("row_id", ["its own", "0" * 32])
@pytest.mark.parametrize("layout", ["ours", "another"])
def test_an_eval_prompt_among_the_training_rows_is_a_leak(built: Workbench, split: Any, row_id: str, layout: str) -> None:
    row = eval_rows(built.path("base"))[3]
    record = {"request": row["request"], "response": row["response"]}
    line = training_line_of(row["row_id"] if row_id == "its own" else row_id, record)
    if layout == "another":
        line = orjson.dumps(dict(reversed(list(orjson.loads(line).items())))) + b"\n"
    path = training_files(built.path("train"), split)[0]
    path.write_bytes(path.read_bytes() + line)
    outcome = check_no_leakage(built.path("base"), built.path("train"))
    assert not outcome.passed
    assert outcome.details["shared_prompts"] == 1
    assert outcome.details["shared_conversations"] == (row_id == "its own")


def test_a_cluster_on_both_sides_is_a_leak(built: Workbench) -> None:
    base = built.path("base")
    train_row = orjson.loads(training_files(built.path("train"))[0].read_bytes().splitlines()[5])
    manifest = {row["row_id"]: row for row in pq.read_table(base / "rows.parquet").to_pylist()}
    rows = eval_rows(base)
    rows[0]["cluster"] = manifest[train_row["row_id"]]["cluster"]
    (base / "eval_data.jsonl").write_bytes(b"".join(eval_lines(rows)))
    outcome = check_no_leakage(base, built.path("train"))
    assert not outcome.passed
    assert outcome.details["shared_clusters"] == 1


def test_training_files_that_are_not_those_of_the_manifest_fail(built: Workbench) -> None:
    path = training_files(built.path("train"))[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    outcome = check_no_leakage(built.path("base"), built.path("train"))
    assert not outcome.passed
    assert "rows.parquet" in outcome.message


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tools", [], "tools"),
        ("tools", "{}", "tools must be a list"),
        ("prompt", [], "prompt"),
        ("completion", [], "completion"),
        ("completion", [{"role": "user", "content": ""}], "assistant"),
        ("prompt", [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "text"),
        ("row_id", "", "row_id"),
    ],
)
def test_a_malformed_training_row_is_named(built: Workbench, field: str, value: object, words: str) -> None:
    path = training_files(built.path("train"), "validation")[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = orjson.dumps({**orjson.loads(lines[2]), field: value}) + b"\n"
    path.write_bytes(b"".join(lines))
    outcome = check_schema_valid(built.path("base"), built.path("train"))
    assert not outcome.passed
    assert "validation/00000.jsonl:3" in outcome.message
    assert words in outcome.details["first"][0]


def test_a_malformed_eval_row_is_named(built: Workbench) -> None:
    file = built.path("base") / "eval_data.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"role":"user"', b'"role":"robot"')
    lines[4] = b"not json\n"
    file.write_bytes(b"".join(lines))
    outcome = check_schema_valid(built.path("base"), built.path("train"))
    assert not outcome.passed
    assert outcome.details["faults"] == 2
    assert "eval_data.jsonl:2" in outcome.details["first"][0] and "robot" in outcome.details["first"][0]


def test_files_checked_before_are_not_read_again(built: Workbench) -> None:
    built.add([], POLICY)
    outcome = check_schema_valid(built.path("base"), built.path("train"), previous_train=built.path("train", 1))
    assert outcome.passed
    assert outcome.details["rows_read"] == 20


def test_too_few_or_one_sided_records_are_not_enough(built: Workbench, make_workbench: Any) -> None:
    outcome = check_enough_records(built.path("base"), built.path("train"), min_total_records=130)
    assert not outcome.passed
    assert "Ingest 30 more" in outcome.message
    one_session = make_workbench("one")
    one_session.add([log_line(n, session_id="s") for n in range(60)], POLICY)
    outcome = check_enough_records(one_session.path("base"), one_session.path("train"), min_total_records=50)
    assert not outcome.passed
    assert "too few" in outcome.message


def test_a_torn_segment_is_not_well_formed(built: Workbench) -> None:
    bodies = built.path("records") / "segments" / "00000.zst"
    bodies.write_bytes(bodies.read_bytes()[:-5])
    outcome = check_well_formed(built.path("records"))
    assert not outcome.passed
    assert "segments/00000.zst" in outcome.message


def test_many_refusals_mean_broken_logging(workbench: Workbench) -> None:
    workbench.records([log_line(n) for n in range(8)] + [log_line(n, messages=[]) for n in range(8, 10)])
    outcome = check_well_formed(workbench.path("records"))
    assert not outcome.passed
    assert "empty_messages" in outcome.message
    assert outcome.details == {"records": 8, "refused": 2, "reasons": {"empty_messages": 2}}
