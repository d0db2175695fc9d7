"""Records: what an update keeps, replaces, refuses, and never touches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from flywheel_assets.core.datasets import appending, profile_workload, read_eval_rows, training_shards, update, workers
from flywheel_assets.core.datasets.build import build_datasets
from flywheel_assets.core.datasets.policy import SplitPolicy
from tests.core.datasets.workbench import MAX_BYTES, NOW, Stored, Workbench, call, log_line

POLICY = SplitPolicy(eval_size=10, min_total_records=2, eval_share=0.3)
FilesOf = Callable[[Path], dict[str, bytes]]


def test_a_repeated_conversation_counts_once(workbench: Workbench) -> None:
    summary = workbench.records([log_line(1), log_line(1, id="again"), log_line(2)])
    assert (summary.records, summary.duplicates, summary.rows) == (2, 1, 3)


def test_a_new_call_id_alone_does_not_make_a_conversation_new(workbench: Workbench) -> None:
    again = log_line(1, id="again", answer=call("get_weather", {"city": "1"}, call_id="call_2"))
    assert workbench.records([log_line(1), again]).duplicates == 1


def test_text_given_in_parts_is_the_same_conversation(workbench: Workbench) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Weather in town 1?"}]}]
    assert workbench.records([log_line(1), log_line(1, id="again", messages=parts)]).duplicates == 1


def test_another_answer_makes_another_conversation(workbench: Workbench) -> None:
    other = log_line(1, id="other", answer=call("get_weather", {"city": "2"}))
    assert workbench.records([log_line(1), other]).records == 2


def test_the_last_content_of_an_id_counts(workbench: Workbench) -> None:
    workbench.records([log_line(1), log_line(2)])
    summary = workbench.records([log_line(3, id="t1")])
    assert (summary.records, summary.superseded, summary.new_rows) == (2, 1, 1)


def test_records_that_are_read_once_more_unchanged_keep_their_place(workbench: Workbench) -> None:
    before = workbench.records([log_line(n) for n in range(1, 5)])
    again = workbench.records([log_line(2), log_line(1)])
    assert (again.records, again.superseded, again.data_version) == (4, 2, before.data_version)
    changed = workbench.records([log_line(2, latency_ms=7)])
    assert changed.data_version != before.data_version


def test_a_duplicate_counts_again_when_the_row_it_repeats_is_superseded(workbench: Workbench) -> None:
    assert workbench.records([log_line(1), log_line(1, id="again")]).duplicates == 1
    summary = workbench.records([log_line(2, id="t1")])
    assert (summary.records, summary.duplicates, summary.superseded) == (2, 0, 1)


def test_bad_records_are_quarantined_with_a_reason_and_good_ones_beside_them_kept(workbench: Workbench) -> None:
    summary = workbench.records([log_line(1), log_line(2, timestamp="yesterday"), log_line(3, messages=[])])
    assert (summary.records, summary.rejected) == (1, {"bad_timestamp": 1, "empty_messages": 1})
    summary = workbench.records([log_line(4, messages=[])])
    assert (summary.records, summary.new_rejected, summary.rejected) == (1, 1, {"bad_timestamp": 1, "empty_messages": 2})
    lines = [orjson.loads(line) for line in (workbench.path("records") / "quarantine.jsonl").read_bytes().splitlines()]
    assert [(line["trace_id"], line["reason"]) for line in lines] == [
        ("t2", "bad_timestamp"),
        ("t3", "empty_messages"),
        ("t4", "empty_messages"),
    ]
    assert all(line["detail"] for line in lines)


def test_an_update_without_records_changes_nothing(workbench: Workbench) -> None:
    first = workbench.records([log_line(1)])
    second = workbench.records([])
    assert (second.records, second.new_rows, second.data_version) == (1, 0, first.data_version)


def test_records_added_in_steps_equal_those_added_at_once(make_workbench: Callable[[str], Workbench]) -> None:
    lines = [log_line(n) for n in range(40)] + [log_line(3, id="again"), log_line(99, id="t5")]
    at_once, in_steps = make_workbench("once"), make_workbench("steps")
    whole = at_once.records(lines)
    for start in range(0, len(lines), 9):
        last = in_steps.records(lines[start : start + 9], batch=2)
        datasets = in_steps.datasets(POLICY)
    assert last.data_version == whole.data_version
    assert at_once.datasets(POLICY).base_version == datasets.base_version
    assert at_once.datasets(POLICY).train_version == datasets.train_version


def test_the_same_records_give_the_same_bytes(make_workbench: Callable[[str], Workbench], files_of: FilesOf) -> None:
    lines = [log_line(n) for n in range(60)]
    one, other = make_workbench("one"), make_workbench("other")
    one.records(lines, batch=60)
    other.records(lines, batch=1)
    one.datasets(POLICY)
    other.datasets(POLICY)
    assert files_of(one.folder) == files_of(other.folder)


def test_worker_processes_give_the_same_bytes(
    make_workbench: Callable[[str], Workbench], files_of: FilesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [log_line(n) for n in range(60)] + [log_line(61, messages=[])]
    alone, shared = make_workbench("alone"), make_workbench("shared")
    monkeypatch.setattr(update, "CHUNK_RECORDS", 16)
    alone.records(lines)
    monkeypatch.setattr(update, "SERIAL_RECORDS", 10)
    monkeypatch.setattr(workers, "SERIAL_RECORDS", 10)
    started: list[int] = []
    monkeypatch.setattr(update, "worker_processes", lambda count: started.append(count) or workers.worker_processes(count))
    shared.records(lines, workers=2)
    assert started == [2]
    assert files_of(alone.folder) == files_of(shared.folder)


def test_an_update_leaves_the_previous_version_as_it_was(workbench: Workbench, files_of: FilesOf) -> None:
    workbench.add([log_line(n) for n in range(30)], POLICY)
    before = files_of(workbench.folder)
    workbench.add([log_line(n) for n in range(25, 45)] + [log_line(50, messages=[])], POLICY)
    after = files_of(workbench.folder)
    assert {name: after[name] for name in before} == before


def test_nothing_old_is_read_again(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "OPEN_SEGMENT_RECORDS", 1)
    monkeypatch.setattr(training_shards, "SHARD_ROWS", 1)
    workbench.add([log_line(n) for n in range(60)], POLICY)
    for bodies in (workbench.path("records") / "segments").iterdir():
        bodies.write_bytes(bytes(bodies.stat().st_size))
    summary = workbench.add(
        [log_line(n, timestamp=1.0) for n in range(60, 64)], SplitPolicy(eval_size=10, min_total_records=2)
    )
    assert summary.usable == 64
    assert summary.train_rows + summary.validation_rows + summary.eval_rows + sum(summary.left_out.values()) == 64
    assert summary.shards_reused > 0


def test_many_small_updates_leave_few_files(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "OPEN_SEGMENT_RECORDS", 20)
    for step in range(12):
        summary = workbench.records([log_line(5 * step + n) for n in range(5)])
    assert summary.records == 60
    assert [segment.rows for segment in summary.segments] == [20, 20, 20]


def test_a_huge_record_is_refused_and_the_rest_is_kept(workbench: Workbench) -> None:
    summary = workbench.records([log_line(1), log_line(2, padding="x" * MAX_BYTES)])
    assert (summary.records, summary.rejected) == (1, {"oversize": 1})


def test_records_of_a_foreign_store_need_not_be_canonical(tmp_path: Path) -> None:
    bodies = [orjson.dumps(log_line(n), option=orjson.OPT_INDENT_2) for n in range(12)]
    batch = [Stored(n, f"t{n}", body) for n, body in enumerate(bodies)]
    summary = update_records_of(tmp_path, batch)
    assert summary.records == 12
    datasets = build_datasets(tmp_path / "r", None, tmp_path / "b", tmp_path / "t", workload="w", policy=POLICY)
    assert datasets.usable == 12


def test_a_foreign_stores_id_counts_where_the_record_brings_none_or_another(tmp_path: Path) -> None:
    anonymous = {name: value for name, value in log_line(1).items() if name != "id"}
    batch = [Stored(0, "a", orjson.dumps(anonymous)), Stored(1, "b", orjson.dumps(log_line(2)))]
    update_records_of(tmp_path, batch)
    [index] = (tmp_path / "r" / "index").iterdir()
    assert pq.read_table(index)["trace_id"].to_pylist() == ["a", "b"]
    policy = SplitPolicy(eval_size=2, min_total_records=2, eval_share=0.999999)
    build_datasets(tmp_path / "r", None, tmp_path / "b", tmp_path / "t", workload="w", policy=policy)
    assert {row.trace_id for row in read_eval_rows(tmp_path / "b")} == {"a", "b"}


def test_one_empty_version_is_profiled_without_failing(workbench: Workbench) -> None:
    summary = workbench.records([])
    assert summary.records == 0
    assert profile_workload(workbench.path("records")).records == 0


def update_records_of(folder: Path, batch: list[Stored]) -> update.RecordsSummary:
    return update.update_records(None, [batch], folder / "r", max_bytes=MAX_BYTES, received_at=NOW)
