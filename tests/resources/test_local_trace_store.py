"""What every trace store promises (`TraceStoreContract`), and what the local one adds.

Another store joins by subclassing the contract and giving its own `store` fixture.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from flywheel_assets.core.records import Record, Reject, RejectReason, parse_record
from flywheel_assets.resources.trace_stores import (
    START,
    LocalTraceStore,
    RejectedLine,
    TraceStore,
    TraceStoreBusy,
    TraceStoreCorrupt,
    TraceStoreError,
    UnknownWatermark,
)
from flywheel_assets.resources.trace_stores.body_codec import MIN_SAMPLES

ROOT = Path(__file__).resolve().parents[2]


def record(record_id, text="hello", workload="router", **fields) -> Record:
    line = {
        "id": record_id,
        "timestamp": 1_700_000_000,
        "workload_id": workload,
        "client_id": "app",
        "request": {"messages": [{"role": "user", "content": text}]},
        "response": {"choices": [{"message": {"role": "assistant", "content": "hi"}}]},
        **fields,
    }
    parsed = parse_record(json.dumps(line).encode(), max_bytes=1_000_000, received_at=1.8e9)
    assert isinstance(parsed, Record)
    return parsed


def rejected(line, number=1, workload=None, reason=RejectReason.NOT_JSON):
    return RejectedLine(Reject(reason, f"detail of {line}", line, line.encode().ljust(16), workload), "log.jsonl", number)


def read(store, workload="router", after=None, until=None, batch_size=2000):
    batches = store.read_after(workload, after, until=until, batch_size=batch_size)
    return [stored for batch in batches for stored in batch]


def ids(stored):
    return [one.id for one in stored]


class TraceStoreContract:
    """The promises of `TraceStore`; `store` is an empty one."""

    def test_it_is_a_trace_store(self, store):
        assert isinstance(store, TraceStore)

    def test_what_was_added_comes_out_in_the_order_it_came_in(self, store):
        records = [record(f"r{number}", timestamp=1_700_000_000 - number) for number in range(25)]
        assert store.add(iter(records)).new == 25
        stored = read(store, batch_size=10)
        assert [(one.id, one.body) for one in stored] == [(one.id, one.body) for one in records]
        assert [one.seq for one in stored] == sorted({one.seq for one in stored})

    def test_adding_the_same_again_changes_nothing(self, store):
        store.add([record("a"), record("b")])
        before = store.summary("router")
        result = store.add([record("b"), record("a")])
        assert (result.new, result.updated, result.duplicate, result.workloads) == (0, 0, 2, {})
        assert store.summary("router") == before
        assert ids(read(store)) == ["a", "b"]

    def test_a_changed_content_under_a_known_id_wins_and_moves_to_the_end(self, store):
        store.add([record("a", "old"), record("b")])
        seen = store.watermark("router")
        result = store.add([record("a", "new"), record("b")])
        assert (result.new, result.updated, result.duplicate, result.workloads) == (1, 1, 1, {"router": 1})
        assert ids(read(store)) == ["b", "a"]
        (after,) = read(store, after=seen)
        assert after.id == "a" and b'"new"' in after.body
        assert store.summary("router").count == 2

    def test_records_that_yield_come_in_only_where_their_id_is_unknown(self, store):
        store.add([record("a", "pulled")])
        before = store.watermark("router")
        result = store.add([record("a", "exported"), record("a", "pulled"), record("b"), record("b", "x")], keep_known=True)
        assert (result.new, result.updated, result.duplicate, result.workloads) == (1, 0, 3, {"router": 1})
        assert ids(read(store, after=before)) == ["b"] and ids(read(store)) == ["a", "b"]
        assert b'"pulled"' in read(store)[0].body and b'"x"' not in read(store)[1].body
        assert store.add([record("b", "x")]).updated == 1

    def test_it_counts_what_a_reader_would_get(self, store):
        assert store.count_after("router", None) == 0
        store.add([record("a", "old"), record("b"), record("x", workload="other")])
        seen = store.watermark("router")
        assert (store.count_after("router", None), store.count_after("router", seen)) == (2, 0)
        store.add([record("a", "new"), record("c"), record("b")])
        assert (store.count_after("router", None), store.count_after("router", seen)) == (3, 2)
        assert store.count_after("router", "another-store.5") == 3

    def test_within_one_batch_the_last_content_wins(self, store):
        result = store.add([record("a", "1"), record("b"), record("a", "2"), record("a", "2")])
        assert (result.new, result.updated, result.duplicate) == (3, 1, 1)
        assert ids(read(store)) == ["b", "a"]
        assert b'"2"' in read(store)[-1].body
        assert store.summary("router").count == 2

    def test_a_content_that_comes_back_within_a_batch_leaves_one_record(self, store):
        store.add([record("a", "1")])
        store.add([record("a", "2"), record("a", "1")])
        (only,) = read(store)
        assert b'"1"' in only.body and store.summary("router").count == 1

    def test_the_same_id_in_two_workloads_is_two_records(self, store):
        result = store.add([record("a"), record("a", workload="Other App")])
        other = next(slug for slug in result.workloads if slug != "router")
        assert result.workloads == {"router": 1, other: 1}
        assert [(s.slug, s.workload_id, s.count) for s in store.workloads()] == [
            (other, "Other App", 1),
            ("router", "router", 1),
        ]
        assert ids(read(store, other)) == ["a"]

    def test_reading_on_from_a_watermark_gives_what_came_after_it_and_nothing_twice(self, store):
        seen, watermark = [], None
        for start in range(0, 30, 7):
            store.add([record(f"r{number}") for number in range(start, min(start + 7, 30))])
            until = store.watermark("router")
            seen += ids(read(store, after=watermark, until=until, batch_size=3))
            watermark = until
        assert seen == [f"r{number}" for number in range(30)]
        assert read(store, after=watermark) == []

    def test_until_keeps_out_what_came_later(self, store):
        store.add([record("a")])
        until = store.watermark("router")
        store.add([record("b")])
        assert ids(read(store, until=until)) == ["a"]
        assert ids(read(store, after=START, until=START)) == []

    def test_a_watermark_stands_still_while_its_workload_does(self, store):
        store.add([record("a")])
        before = store.watermark("router")
        store.add([record("a"), record("b", workload="other")])
        assert store.watermark("router") == before == store.summary("router").watermark
        store.add([record("a", "changed")])
        assert store.watermark("router") != before

    def test_a_reader_sees_one_state_however_long_it_takes(self, store):
        store.add([record(f"r{number}") for number in range(10)])
        batches = store.read_after("router", None, batch_size=4)
        first = next(batches)
        store.add([record("r9", "changed"), record("r0", "changed"), record("late")])
        rest = [one for batch in batches for one in batch]
        assert ids(first) + ids(rest) == [f"r{number}" for number in range(10)]
        assert b"changed" not in rest[-1].body

    def test_what_is_not_there_reads_as_empty(self, store):
        assert (store.workloads(), store.rejects(), read(store, "nobody")) == ([], [], [])
        assert (store.summary("nobody").count, store.watermark("nobody")) == (0, START)
        assert store.add([]).new == 0 and store.reject([]) == 0

    def test_a_watermark_of_another_store_is_refused(self, store):
        store.add([record("a")])
        for foreign in ("deadbeef.3", "7", "", store.watermark("router") + "x"):
            with pytest.raises(UnknownWatermark, match="from the start"):
                read(store, after=foreign)

    def test_rejects_are_kept_once_and_counted_by_workload_and_reason(self, store):
        not_chat = RejectReason.NOT_CHAT
        lines = [rejected("a"), rejected("b", 7), rejected("c", 2, "router", not_chat), rejected("d", 3, "router", not_chat)]
        assert store.reject(lines) == 4
        assert store.reject([*lines, rejected("e", 4, "router")]) == 1
        counts = {(count.workload, count.reason): count.count for count in store.rejects()}
        assert counts == {(None, "not_json"): 2, ("router", "not_chat"): 2, ("router", "not_json"): 1}
        assert [(count.reason, count.count) for count in store.rejects("router")] == [("not_chat", 2), ("not_json", 1)]
        (example,) = [count for count in store.rejects() if count.workload is None]
        assert example.detail in ("detail of a", "detail of b") and example.origin == "log.jsonl"

    def test_a_batch_that_fails_half_way_leaves_nothing(self, store):
        def broken():
            yield record("a")
            raise RuntimeError("the source went away")

        with pytest.raises(RuntimeError):
            store.add(broken())
        assert store.workloads() == []


class TestLocalTraceStore(TraceStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        store = LocalTraceStore(tmp_path / "home" / "traces.sqlite")
        yield store
        store.close()

    def test_reading_an_absent_store_does_not_create_it(self, store):
        assert store.workloads() == [] and read(store) == []
        assert not store.path.parent.exists()
        with pytest.raises(UnknownWatermark):
            read(store, after="deadbeef.3")

    def test_a_store_made_anew_does_not_take_the_old_ones_watermarks(self, store):
        store.add([record("a"), record("b")])
        old = store.watermark("router")
        for file in store.path.parent.iterdir():
            file.unlink()
        store.add([record("c")])
        assert ids(read(store)) == ["c"], "the store went on writing to the deleted file"
        with pytest.raises(UnknownWatermark, match="replaced"):
            read(store, after=old)

    def test_a_failed_write_is_rolled_back_whole(self, store):
        store.add([record("a")])
        before = store.watermark("router")
        with sqlite3.connect(store.path) as db:
            db.execute("CREATE TRIGGER full BEFORE UPDATE ON workloads BEGIN SELECT RAISE(ABORT, 'no room'); END")
        with pytest.raises(TraceStoreError):
            store.add([record("b"), record("a", "changed")])
        with sqlite3.connect(store.path) as db:
            db.execute("DROP TRIGGER full")
        assert ids(read(store)) == ["a"] and store.watermark("router") == before
        assert store.add([record("b")]).new == 1

    def test_ids_whose_hashes_collide_stay_apart(self, store, monkeypatch):
        monkeypatch.setattr("flywheel_assets.resources.trace_stores.local._id_hash", lambda slug, record_id: 7)
        store.add([record("a"), record("b"), record("a", workload="other")])
        result = store.add([record("a", "changed"), record("b"), record("c")])
        assert (result.new, result.updated, result.duplicate) == (2, 1, 1)
        assert ids(read(store)) == ["b", "a", "c"] and ids(read(store, "other")) == ["a"]

    def test_a_file_that_is_no_database_is_named_with_what_to_do(self, tmp_path):
        path = tmp_path / "traces.sqlite"
        path.write_bytes(b"this is not a database, and long enough to be seen as none" * 100)
        with pytest.raises(TraceStoreCorrupt, match=r"traces\.sqlite.*ingest the logs again"):
            LocalTraceStore(path).add([record("a")])

    def test_somebody_elses_database_is_left_alone(self, tmp_path):
        path = tmp_path / "traces.sqlite"
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (a)")
        before = path.read_bytes()
        with pytest.raises(TraceStoreCorrupt, match="no trace store"):
            LocalTraceStore(path).add([record("a")])
        assert path.read_bytes() == before

    def test_a_store_of_a_newer_version_is_not_touched(self, store):
        store.add([record("a")])
        store.close()
        with sqlite3.connect(store.path) as db:
            db.execute("PRAGMA user_version = 99")
        with pytest.raises(TraceStoreCorrupt, match="schema 99"):
            store.add([record("b")])

    def test_a_store_that_stays_locked_says_so_and_writes_nothing(self, store):
        store.add([record("a")])
        impatient = LocalTraceStore(store.path, busy_timeout_s=0.1)
        with sqlite3.connect(store.path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TraceStoreBusy, match="another process"):
                impatient.add([record("b")])
            assert ids(read(impatient)) == ["a"], "readers must not wait for a writer"
            other.execute("ROLLBACK")
        assert impatient.add([record("b")]).new == 1

    def test_threads_may_share_a_store(self, store):
        threads = [
            threading.Thread(target=lambda t=t: [store.add([record(f"{t}-{n}")]) for n in range(20)]) for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids(read(store)))) == 80

    def test_a_forked_child_may_go_on_using_the_store(self, store):
        store.add([record("a")])
        child = os.fork()
        if child == 0:
            store.add([record("b")])
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.add([record("c")])
        assert ids(read(store)) == ["a", "b", "c"]


WRITER = textwrap.dedent(
    """
    import sys
    from tests.resources.test_local_trace_store import record
    from flywheel_assets.resources.trace_stores import LocalTraceStore

    store = LocalTraceStore(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(0, int(sys.argv[3]), 10):
        batch = [record(f"{sys.argv[2]}-{n}") for n in range(start, start + 10)]
        # Every writer also brings the same records, and in its own order.
        order = sorted(range(start, start + 10), key=lambda n: hash((sys.argv[2], n)))
        store.add([*batch, *(record(f"shared-{n}") for n in order)])
        print(start, flush=True)
    """
)


def writer(path, name, count):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_several_processes_write_at_once_and_a_reader_that_follows_misses_and_doubles_nothing(tmp_path):
    path = tmp_path / "traces.sqlite"
    writers = [writer(path, name, 200) for name in "abc"]
    for process in writers:
        process.stdin.write("go\n")
        process.stdin.flush()
    store, seen, watermark = LocalTraceStore(path), [], None
    while True:
        finished = all(process.poll() is not None for process in writers)
        until = store.watermark("router")
        seen += ids(read(store, after=watermark, until=until))
        watermark = until
        if finished:
            break
        time.sleep(0.005)
    assert [process.wait() for process in writers] == [0, 0, 0]
    for process in writers:
        process.stdin.close()
        process.stdout.close()
    expected = {f"{name}-{n}" for name in ("a", "b", "c", "shared") for n in range(200)}
    assert sorted(seen) == sorted(expected)
    assert store.summary("router").count == len(expected)


def test_killing_a_writer_keeps_whole_batches_and_the_next_one_goes_on(tmp_path):
    path = tmp_path / "traces.sqlite"
    process = writer(path, "a", 100_000)
    process.stdin.write("go\n")
    process.stdin.flush()
    committed = [int(process.stdout.readline()) for _ in range(5)][-1]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    store = LocalTraceStore(path)
    stored = ids(read(store))
    assert len(stored) == len(set(stored)) == store.summary("router").count
    assert len(stored) % 20 == 0 and len(stored) >= 2 * committed
    again = store.add([record(f"a-{n}") for n in range(committed + 100)])
    assert again.new + again.duplicate == committed + 100
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def similar(count, start=0):
    """Records that share a long system message, as those of one workload do."""
    shared = [{"role": "system", "content": "You book tables and answer in one sentence. " * 20}]
    return [
        record(f"s{n}", request={"messages": [*shared, {"role": "user", "content": f"table {n} for {n % 7}"}]})
        for n in range(start, start + count)
    ]


def test_bodies_shrink_by_what_a_workload_repeats_and_all_stay_readable(tmp_path):
    few, many, later = similar(3), similar(MIN_SAMPLES, start=3), similar(2, start=MIN_SAMPLES + 3)
    with_dictionary = LocalTraceStore(tmp_path / "large.sqlite")
    for batch in (few, many, later):
        with_dictionary.add(batch)
    expected = [(one.id, one.body) for one in (*few, *many, *later)]
    assert [(one.id, one.body) for one in read(with_dictionary)] == expected
    with_dictionary.close()
    with sqlite3.connect(tmp_path / "large.sqlite") as db:
        sizes = [size for (size,) in db.execute("SELECT length(body) FROM records ORDER BY seq")]
        assert db.execute("SELECT count(*) FROM dictionaries").fetchone() == (1,)
    assert max(sizes[3:]) < min(sizes[:3]) / 2


def test_records_too_short_to_learn_from_are_stored_without_a_dictionary(tmp_path):
    store = LocalTraceStore(tmp_path / "traces.sqlite")
    added = [record(f"r{n}") for n in range(MIN_SAMPLES)]
    store.add(added)
    assert [one.body for one in read(store)] == [one.body for one in added]
