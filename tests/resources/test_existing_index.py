"""Reading an index that a team already fills: its names, its late documents, and nothing written there."""

from __future__ import annotations

import json
import time

import pytest

from flywheel_assets.core.records import Record, Reject, parse_record
from flywheel_assets.resources.trace_stores import START, TraceStore, TraceStoreError, UnknownWatermark
from flywheel_assets.resources.trace_stores.elasticsearch import ExistingIndexStore, FieldMap
from flywheel_assets.resources.trace_stores.elasticsearch.window import MOST_SINGLE, Seen, Window
from flywheel_assets.settings import ElasticsearchSettings
from tests.elasticsearch_server import ElasticsearchServer, fresh_index
from tests.resources.test_local_trace_store import ids, read, record

T0 = 1_700_000_000_000
FIELDS = {
    "workload_id": "labels.route",
    "timestamp": "@timestamp",
    "request": "body.request",
    "response": "body.response",
    "session_id": "trace.id",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server
    server.kill()


class Team:
    """A team that logs its calls in its own form, and us reading along."""

    def __init__(self, server, *, overlap_s=60, fields=FIELDS, default_workload=None):
        self.index, self.connection = fresh_index(), server.connection()
        self.store = ExistingIndexStore(
            self.connection,
            self.index,
            FieldMap(fields, client_id=self.index, default_workload=default_workload),
            ingested_at="@timestamp",
            overlap_s=overlap_s,
        )
        keyword = {"type": "keyword"}
        mappings = {
            "properties": {
                "@timestamp": {"type": "date"},
                "labels": {"properties": {"route": keyword}},
                "body": {"type": "object", "enabled": False},
            }
        }
        self.connection.ask("test", lambda client: client.indices.create(index=self.index, mappings=mappings))

    def log(self, name, at_s, *, route="router", as_text=False, **changes):
        request = {"messages": [{"role": "user", "content": f"question {name}"}]}
        response = {"choices": [{"message": {"role": "assistant", "content": "answer"}}]}
        body = {"request": request, "response": response}
        if as_text:
            body = {key: json.dumps(value) for key, value in body.items()}
        document = {"@timestamp": int(T0 + at_s * 1000), "body": body, "trace": {"id": "t"}, **changes}
        if route is not None:
            document["labels"] = {"route": route}
        self.connection.ask("test", lambda c: c.index(index=self.index, id=name, document=document, refresh=True))


@pytest.fixture
def team(server):
    return Team(server)


def parsed(stored):
    return parse_record(stored.body, max_bytes=100_000, received_at=1.8e9)


@pytest.mark.parametrize("as_text", [False, True])
def test_documents_in_a_teams_own_form_become_records(team, as_text):
    team.log("a", 0, as_text=as_text)
    assert isinstance(team.store, TraceStore)
    (stored,) = read(team.store)
    one = parsed(stored)
    assert isinstance(one, Record), one
    assert (one.id, one.workload, one.timestamp, one.session_id) == ("a", "router", T0 / 1000, "t")
    assert json.loads(one.body)["client_id"] == team.index


def test_a_late_document_is_read_and_none_comes_twice(team):
    for n in range(5):
        team.log(f"a{n}", n)
    first = team.store.watermark("router")
    assert ids(read(team.store, until=first)) == [f"a{n}" for n in range(5)]
    team.log("late", 1.5)
    second = team.store.watermark("router")
    assert second != first and ids(read(team.store, after=first, until=second)) == ["late"]
    team.log("later", 2.5)
    team.log("new", 30)
    assert read(team.store, after=first, until=second)[0].id == "late", "until keeps out what came later"
    third = team.store.watermark("router")
    assert ids(read(team.store, after=second, until=third)) == ["later", "new"]
    assert read(team.store, after=third) == []


def test_a_document_delivered_twice_moves_nothing(team):
    team.log("a", 0)
    before = team.store.watermark("router")
    team.log("a", 0)
    assert team.store.watermark("router") == before and team.store.pulse() == team.store.pulse()
    team.log("a", 10)
    assert ids(read(team.store, after=before)) == ["a"], "a change that moves the arrival field comes again"


def test_many_documents_in_the_window_keep_the_watermark_short_and_miss_nothing(team):
    lines = []
    for n in range(3 * MOST_SINGLE):
        lines += [{"index": {"_id": f"d{n}"}}, {"@timestamp": T0 + n * 50, "labels": {"route": "router"}}]
    team.connection.ask("test", lambda c: c.bulk(index=team.index, operations=lines, refresh=True))
    first = team.store.watermark("router")
    assert len(first) < 2600 and read(team.store, after=first) == []
    team.log("late", 5.01)
    second = team.store.watermark("router")
    again = ids(read(team.store, after=first, until=second))
    assert "late" in again and len(again) < 12
    assert read(team.store, after=second) == []


def test_a_window_is_written_and_read_back():
    for count in (0, 3, MOST_SINGLE, 10 * MOST_SINGLE):
        seen = [Seen(T0 + n // 3, f"id{n}") for n in range(count)]
        window = Window.of("0123abcd", T0 + count, seen)
        assert Window.parse(window.text()) == window and window.unseen(seen) == []
        assert Seen(T0, "other") in window.unseen([*seen, Seen(T0, "other")])


def test_documents_without_a_workload_are_counted_with_a_hint_and_can_be_given_one(server, team):
    team.log("lost", 0, route=None)
    team.log("found", 1)
    (count,) = team.store.rejects()
    assert (count.workload, count.reason, count.count) == (None, "missing_field", 1) and "_id lost" in count.detail
    given = Team(server, default_workload="support bot")
    given.log("lost", 0, route=None)
    (summary,) = given.store.workloads()
    assert summary.workload_id == "support bot" and ids(read(given.store, summary.slug)) == ["lost"]


TEN_YEARS_S = 10 * 365 * 86_400


def test_a_document_years_ahead_of_the_clock_hides_no_other_one_and_is_counted(team):
    now = time.time() - T0 / 1000
    team.log("ahead", now + TEN_YEARS_S)
    team.log("a", now - 20)
    first = team.store.watermark("router")
    assert ids(read(team.store)) == ids(read(team.store, until=first)) == ["a"]
    assert team.store.summary("router").count == 1
    team.log("b", now - 10)
    team.log("late", now - 30)
    assert team.store.watermark("router") != first
    assert sorted(ids(read(team.store, after=first))) == ["b", "late"] and team.store.count_after("router", first) == 2
    for counts in (team.store.rejects(), team.store.rejects("router")):
        (count,) = counts
        assert (count.reason, count.count) == ("bad_timestamp", 1) and "_id ahead" in count.detail


def test_a_document_a_little_ahead_of_our_clock_is_read(team):
    team.log("a", time.time() - T0 / 1000 + 5)
    assert ids(read(team.store)) == ["a"] and team.store.rejects() == []


def test_a_watermark_from_the_future_is_not_believed(team):
    team.log("a", 0)
    ahead = Window.of(team.store.watermark("router")[:8], int((time.time() + TEN_YEARS_S) * 1000), []).text()
    with pytest.raises(UnknownWatermark, match="from the start"):
        read(team.store, after=ahead)


def test_a_deleted_document_and_a_late_one_at_the_same_count_are_noticed(team):
    for n in range(5):
        team.log(f"a{n}", n)
    before = team.store.pulse(), team.store.watermark("router")
    team.connection.ask("test", lambda c: c.delete(index=team.index, id="a1", refresh=True))
    team.log("late", 2.5)
    assert team.store.pulse() != before[0]
    assert ids(read(team.store, after=before[1], until=team.store.watermark("router"))) == ["late"]


def test_a_pattern_that_matches_nothing_yet_holds_no_workloads(server):
    fields = FieldMap({}, client_id="x", default_workload="support bot")
    store = ExistingIndexStore(server.connection(), "nothing-yet-*", fields, ingested_at="@timestamp", overlap_s=60)
    assert store.workloads() == [] and read(store) == [] and store.rejects() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": {}}, "missing_field"),
        ({"body": "text"}, "missing_field"),
        ({"body": {"request": "{", "response": 7}}, "bad_field_type"),
    ],
)
def test_what_cannot_be_mapped_comes_out_as_a_line_that_is_refused_with_a_reason(team, changes, reason):
    team.log("odd", 0, **changes)
    (stored,) = read(team.store)
    assert stored.id == "odd"
    refused = parse_record(stored.body, max_bytes=100_000, received_at=1.8e9)
    assert isinstance(refused, Reject), refused
    assert refused.reason == reason and refused.detail


def test_nothing_is_written_to_an_index_that_is_only_read(team):
    for write in (lambda: team.store.add([record("a")]), lambda: team.store.reject([])):
        with pytest.raises(TraceStoreError, match="only read"):
            write()


def test_a_missing_index_is_an_error_and_is_not_created(server):
    store = ExistingIndexStore(
        server.connection(), fresh_index(), FieldMap({}, client_id="x"), ingested_at="@timestamp", overlap_s=60
    )
    with pytest.raises(TraceStoreError, match="there is no index"):
        store.workloads()


def test_watermarks_of_other_fields_are_refused(server, team):
    team.log("a", 0)
    assert ids(read(team.store, after=START)) == ["a"]
    other = ExistingIndexStore(
        team.connection,
        team.index,
        FieldMap({**FIELDS, "request": "x"}, client_id="x"),
        ingested_at="@timestamp",
        overlap_s=60,
    )
    for foreign in (other.watermark("router"), "nonsense", "deadbeef.3", ""):
        with pytest.raises(UnknownWatermark, match="from the start"):
            read(team.store, after=foreign)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"fields": {"request": "x"}}, "read_only"),
        ({"read_only": True, "fields": {"requst": "x"}}, "unknown field 'requst'"),
        ({"index": "A,b"}, "index"),
        ({"index": "logs-*"}, "read_only"),
    ],
)
def test_settings_say_what_is_wrong(content, named):
    with pytest.raises(ValueError, match=named):
        ElasticsearchSettings(**content)
