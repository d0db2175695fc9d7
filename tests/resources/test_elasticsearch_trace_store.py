"""The Elasticsearch trace store against a real server over the wire, and what it does when that server fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from flywheel_assets.resources.trace_stores import TraceStoreCorrupt, TraceStoreError, UnknownWatermark
from flywheel_assets.resources.trace_stores.elasticsearch import (
    Access,
    Connection,
    ElasticsearchTraceStore,
    ElasticsearchUnavailable,
    IncompleteAnswer,
)
from flywheel_assets.resources.trace_stores.elasticsearch.connection import version_advice
from flywheel_assets.resources.trace_stores.elasticsearch.health import examine_server
from flywheel_assets.resources.trace_stores.elasticsearch.scan import PageSize
from flywheel_assets.settings import ElasticsearchSettings
from tests.elasticsearch_server import ElasticsearchServer, free_port, fresh_index
from tests.faulty_proxy import FaultyProxy, answer_lost, busy, items_busy, shards_failed, slow_once
from tests.resources.test_local_trace_store import ROOT, TraceStoreContract, ids, read, record


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def store(server):
    store = ElasticsearchTraceStore(server.connection(), fresh_index())
    yield store
    store.close()


class TestElasticsearchTraceStore(TraceStoreContract):
    pass


@pytest.fixture
def proxy(server):
    proxy = FaultyProxy(server.url)
    yield proxy
    proxy.close()


def behind(proxy, index, **options):
    options = {"timeout_s": 5, "retry_s": 10, **options}
    return ElasticsearchTraceStore(Connection(Access(proxy.url), **options), index)


def test_a_storm_of_429_slows_the_store_down_and_loses_nothing(store, proxy):
    proxy.fault = busy(every=3)
    stormy = behind(proxy, store.index)
    assert stormy.add([record(f"r{n}") for n in range(50)]).new == 50
    assert ids(read(stormy, batch_size=20)) == [f"r{n}" for n in range(50)]
    assert store.summary("router").count == 50


def test_documents_refused_as_too_many_are_sent_again_alone(store, proxy):
    proxy.fault = items_busy(share=2)
    result = behind(proxy, store.index).add([record(f"r{n}") for n in range(20)])
    assert (result.new, result.duplicate) == (20, 0)
    assert sorted(ids(read(store))) == sorted(f"r{n}" for n in range(20))


def test_answers_that_are_lost_after_the_work_was_done_count_nothing_twice(store, proxy):
    unlucky = behind(proxy, store.index)
    for every in (2, 3, 4, 5):
        proxy.fault = answer_lost(every)
        result = unlucky.add([record(f"{every}-{n}") for n in range(12)])
        assert (result.new, result.updated, result.duplicate) == (12, 0, 0)
    assert sorted(ids(read(store))) == sorted(f"{every}-{n}" for every in (2, 3, 4, 5) for n in range(12))
    assert unlucky.add([record(f"2-{n}") for n in range(12)]).duplicate == 12


def test_a_write_that_times_out_and_went_through_is_counted_once(store, proxy):
    store.add([record("first")])
    proxy.fault = slow_once("/_bulk", 1.5)
    assert behind(proxy, store.index, timeout_s=0.7).add([record("a"), record("b")]).new == 2
    assert ids(read(store)) == ["first", "a", "b"]


def test_a_part_of_the_shards_is_refused_and_never_read_as_nothing_there(store, proxy):
    store.add([record("a")])
    proxy.fault = shards_failed()
    partial = behind(proxy, store.index)
    for ask in (partial.workloads, lambda: read(partial), lambda: partial.watermark("router"), partial.pulse):
        with pytest.raises(IncompleteAnswer, match=r"1 of 2 shards failed \(node left\)"):
            ask()


def test_a_server_that_stays_away_is_named_with_what_to_do(server):
    away = ElasticsearchTraceStore(Connection(Access(f"http://127.0.0.1:{free_port()}"), retry_s=0.3), "nowhere")
    with pytest.raises(ElasticsearchUnavailable, match="ELASTICSEARCH_URL"):
        away.workloads()


def test_a_killed_server_that_comes_back_goes_on_with_the_scan(tmp_path):
    server = ElasticsearchServer(tmp_path)
    server.start()
    try:
        store = ElasticsearchTraceStore(server.connection(retry_s=20), fresh_index())
        for start in range(0, 1500, 500):
            store.add([record(f"r{n}") for n in range(start, start + 500)])
        until = store.watermark("router")
        batches = store.read_after("router", None, until=until, batch_size=100)
        seen = ids(next(batches))
        # This server writes to disk a moment after it answers; Elasticsearch does so before.
        time.sleep(2)
        server.kill()
        threading.Timer(0.5, server.start).start()
        seen += [one.id for batch in batches for one in batch]
        assert seen == [f"r{n}" for n in range(1500)]
        assert store.watermark("router") == until and read(store, after=until) == []
        assert store.add([record(f"r{n}") for n in range(100)]).duplicate == 100
    finally:
        server.kill()


KILLED_WRITER = """
import sys
from tests.resources.test_local_trace_store import record
from flywheel_assets.resources.trace_stores.elasticsearch import Access, Connection, ElasticsearchTraceStore
ElasticsearchTraceStore(Connection(Access(sys.argv[1])), sys.argv[2]).add([record(f"r{n}", sys.argv[3]) for n in range(30)])
"""


@pytest.mark.parametrize("path", ["/_bulk", "/_refresh", "/_create/commit.router.2"])
def test_what_a_killed_writer_left_is_let_in_by_the_next_one(store, proxy, path):
    store.add([record(f"r{n}", "old") for n in range(10)])
    seen, arrived = store.watermark("router"), threading.Event()

    def stop_there(proxy, handler, request):
        if request.path.endswith(path):
            if path == "/_bulk":
                proxy.forward(handler, request)
            arrived.set()
            time.sleep(0.5)
        return arrived.is_set()

    proxy.fault = stop_there
    command = [sys.executable, "-c", KILLED_WRITER, proxy.url, store.index, "new"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as writer:
        assert arrived.wait(20)
        writer.kill()
    assert store.watermark("router") == seen, "a batch counts only once it is committed"
    before = store.pulse()
    result = store.add([record(f"r{n}", "new") for n in range(30)])
    assert (result.new, result.duplicate) == (0, 30)
    assert store.pulse() != before
    assert sorted(ids(read(store, after=seen))) == sorted(f"r{n}" for n in range(30))
    assert sorted(ids(read(store))) == sorted(f"r{n}" for n in range(30))
    assert store.adopt(older_than_s=0) == 0


def test_a_killed_writers_batch_is_adopted_without_its_records_coming_again(store, proxy):
    store.add([record("a", "old")])
    proxy.fault = lambda proxy, handler, request: (
        "/_create/" in request.path and proxy.reply(handler, 400, b'{"error": {"type": "stop", "reason": "stop"}}') is None
    )
    with pytest.raises(TraceStoreError, match="stop"):
        behind(proxy, store.index).add([record("a", "new"), record("b")])
    assert ids(read(store)) == [], "the old content is replaced, the new one not yet let in"
    assert store.adopt(older_than_s=0) == 1
    assert sorted(ids(read(store))) == ["a", "b"] and store.adopt(older_than_s=0) == 0


def test_several_writers_and_a_reader_that_follows_misses_nothing(server, store):
    def write(name):
        own = ElasticsearchTraceStore(server.connection(), store.index)
        for start in range(0, 60, 10):
            own.add(
                [
                    *(record(f"{name}-{n}") for n in range(start, start + 10)),
                    *(record(f"shared-{n}") for n in range(start, start + 10)),
                ]
            )

    store.add([record("first")])
    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    seen, watermark = [], None
    while True:
        finished = not any(thread.is_alive() for thread in threads)
        until = store.watermark("router")
        seen += ids(read(store, after=watermark, until=until))
        watermark = until
        if finished:
            break
    expected = {"first", *(f"{name}-{n}" for name in ("a", "b", "c", "shared") for n in range(60))}
    assert sorted(seen) == sorted(expected)
    assert store.summary("router").count == len(expected)


def test_an_index_made_anew_does_not_take_the_old_ones_watermarks(store):
    store.add([record("a"), record("b")])
    old = store.watermark("router")
    store.connection.ask("test", lambda client: client.indices.delete(index=store.index))
    assert store.workloads() == []
    store.add([record("c")])
    with pytest.raises(UnknownWatermark, match="replaced"):
        read(store, after=old)


def test_somebody_elses_index_is_left_alone(store):
    store.connection.ask("test", lambda client: client.indices.create(index=store.index, mappings={"properties": {}}))
    with pytest.raises(TraceStoreCorrupt, match="read_only: true"):
        store.add([record("a")])
    with pytest.raises(TraceStoreCorrupt, match="left alone"):
        store.workloads()


def test_pages_are_bounded_by_bytes_as_well_as_by_records():
    page = PageSize(2000)
    page.saw([4_000_000] * 10)
    assert page.records == 4
    for _ in range(10):
        page.saw([3000] * 2)
    assert page.records == 2000


def test_credentials_never_show():
    given = {"ELASTICSEARCH_URL": "https://me:s3cr3t@search.example.com/x/", "ELASTICSEARCH_API_KEY": "k3y"}
    access = Access.from_environment(given)
    assert access.url == "https://search.example.com:443/x" and (access.username, access.password) == ("me", "s3cr3t")
    assert "s3cr3t" not in repr(access) and "k3y" not in repr(access)
    with pytest.raises(TraceStoreError, match="is not set"):
        Access.from_environment({})
    with pytest.raises(TraceStoreError) as error:
        Access.from_environment({"ELASTICSEARCH_URL": "search.example.com:me:s3cr3t"})
    assert "s3cr3t" not in str(error.value)


def test_a_refusal_of_credentials_says_which_kind_was_sent_and_not_what(store, proxy):
    proxy.fault = lambda proxy, handler, request: (
        proxy.reply(handler, 401, b'{"error": {"type": "security_exception", "reason": "unable to authenticate"}}') is None
    )
    secret = Connection(Access(proxy.url, api_key="k3y"), retry_s=1)
    with pytest.raises(TraceStoreError, match="Sent: API key") as error:
        ElasticsearchTraceStore(secret, "traces").workloads()
    assert "k3y" not in str(error.value)


def test_a_server_of_an_older_major_is_told_apart(proxy):
    body = (
        b'{"error": {"type": "media_type_header_exception", "reason": "Invalid media-type value on headers"}, "status": 400}'
    )
    proxy.fault = lambda proxy, handler, request: proxy.reply(handler, 400, body) is None
    with pytest.raises(TraceStoreError, match=r"pip install 'elasticsearch>=\d+,<\d+'"):
        ElasticsearchTraceStore(Connection(Access(proxy.url), retry_s=1), "traces").workloads()


def test_doctor_says_what_is_there_and_what_does_not_agree(server, store, monkeypatch):
    monkeypatch.setenv("ELASTICSEARCH_URL", server.url.replace("://", "://me:s3cr3t@"))
    store.add([record("a")])
    monkeypatch.setattr("flywheel_assets.resources.trace_stores.elasticsearch.health.version_advice", lambda server: "")
    health = examine_server(ElasticsearchSettings(index=store.index))
    assert health.ok and "1 records of 1 workloads" in health.found and "user me" in health.found
    assert "s3cr3t" not in str(health)
    monkeypatch.undo()
    monkeypatch.setenv("ELASTICSEARCH_URL", server.url)
    skewed = examine_server(ElasticsearchSettings(index=store.index))
    assert skewed.ok == (version_advice("8.15.3") == "") and "8.15.3" in skewed.found
