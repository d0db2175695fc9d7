"""Ingest of data sets that are no logs: told by content, read whatever the file's form, stored once."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from flywheel_assets.core.formats import registry
from flywheel_assets.core.formats.langfuse import record_of
from flywheel_assets.resources import log_lines
from flywheel_assets.resources.ingest import IngestError, ingest
from flywheel_assets.resources.log_formats import configured_formats
from flywheel_assets.resources.sources import Pull, PulledRecord, collect
from flywheel_assets.resources.trace_stores import LocalTraceStore
from flywheel_assets.settings import LangfuseSettings, parse_settings
from tests.core.formats.rows import HERMES, OPENAI, SHAREGPT, TRACER, VALID, XLAM, Row
from tests.langfuse_rows import row
from tests.plugin_package import install

Write = Callable[..., Path]
LOG_ROW: Row = {
    "timestamp": 1_700_000_000,
    "workload_id": "router",
    "client_id": "app",
    "request": {"messages": [{"role": "user", "content": "hello"}]},
    "response": {"choices": [{"message": {"role": "assistant", "content": "hi"}}]},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalTraceStore]:
    store = LocalTraceStore(tmp_path / "store" / "traces.sqlite")
    yield store
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "data.jsonl") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def lines(*rows: Row) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def numbered(count: int, row: Row = XLAM) -> list[Row]:
    return [{**row, "query": f'Is article {n} in store 3? Ä "quoted" \\ [{{'} for n in range(count)]


def bodies(store: LocalTraceStore, workload: str = "shop") -> list[Any]:
    return [json.loads(one.body) for batch in store.read_after(workload, None) for one in batch]


def test_each_file_is_told_by_its_content_and_said_before_anything_is_stored(store: LocalTraceStore, file: Write) -> None:
    paths = [file(lines(*rows), f"{name}.jsonl") for name, rows in VALID.items()]
    paths.append(file(lines(LOG_ROW), "log.jsonl"))
    told: list[Any] = []
    report = ingest(
        paths,
        store,
        format_name="auto",
        default_workload="shop",
        recognised=lambda found: told.append((dict(found), store.path.exists())),
    )
    expected = {str(path): path.stem for path in paths}
    assert told == [(expected, False)]
    assert (report.formats, report.to_json()["formats"]) == (expected, expected)
    assert (report.rejected, report.workloads) == (0, {"router": 1, "shop": 6, "stock-agent": 1})
    assert {body["source"] for body in bodies(store)} == set(VALID) - {"workflow-tracer"}
    assert bodies(store, "router")[0]["source"] == "traffic"


def test_ingesting_a_data_set_again_adds_nothing_whatever_its_form(store: LocalTraceStore, file: Write) -> None:
    rows = numbered(20)
    first = ingest([file(lines(*rows))], store, format_name="xlam", default_workload="shop")
    again = ingest([file(json.dumps(rows, indent=1).encode())], store, format_name="auto", default_workload="shop")
    assert (first.new, again.new, again.duplicate) == (20, 0, 20)
    other = ingest([file(lines(*rows))], store, format_name="xlam", default_workload="other")
    assert (other.new, len(bodies(store, "other"))) == (20, 20)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [1 << 20, 16, 64])
def test_a_file_may_be_one_array(
    store: LocalTraceStore, file: Write, monkeypatch: pytest.MonkeyPatch, pack: Any, indent: int | None, block: int
) -> None:
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", block)
    rows = numbered(12)
    text = "  \r\n" + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n\n"
    path = file(pack(text.encode()), "data.json")
    report = ingest([path], store, format_name="xlam" if block == 16 else "auto", default_workload="shop")
    assert (report.new, report.rejected, report.formats) == (12, 0, {str(path): "xlam"})
    assert [body["request"]["messages"][0]["content"] for body in bodies(store)] == [row["query"] for row in rows]


def test_a_log_may_be_one_array_too(store: LocalTraceStore, file: Write) -> None:
    assert ingest([file(json.dumps([LOG_ROW, 3]).encode())], store).to_json() == {
        "new": 1,
        "duplicate": 0,
        "rejected": 1,
        "reasons": {"not_an_object": 1},
        "workloads": {"router": 1},
    }


def test_lines_that_hold_a_list_each_are_no_array(store: LocalTraceStore, file: Write) -> None:
    report = ingest([file(b'[{"a": 1}]\n[]\n' + lines(LOG_ROW))], store)
    assert (report.new, report.reasons) == (1, {"not_an_object": 2})


def test_faulty_elements_are_refused_where_they_stand_and_the_others_are_kept(store: LocalTraceStore, file: Write) -> None:
    good = [json.dumps(row) for row in numbered(2)]
    long = json.dumps({**XLAM, "query": "x" * 50_000})
    path = file(f"[{good[0]}, {{'a': 1}}, {long}, null, {good[1]}]".encode())
    report = ingest([path], store, format_name="xlam", default_workload="shop", max_bytes=20_000)
    assert (report.new, report.reasons) == (2, {"not_json": 1, "oversize": 1, "not_an_object": 1})
    assert {kept.reason: kept.line_number for kept in store.rejects()} == {
        "not_json": 2,
        "oversize": 3,
        "not_an_object": 4,
    }


def test_an_oversize_element_is_never_held(store: LocalTraceStore, file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 4096)
    rows = json.dumps([XLAM, {"query": '\\"' * 2_000_000}, {**XLAM, "query": "last"}]).encode()
    report = ingest([file(gzip.compress(rows))], store, format_name="xlam", default_workload="shop", max_bytes=20_000)
    assert (report.new, report.reasons) == (2, {"oversize": 1})


@pytest.mark.parametrize(("ending", "message"), [(b"", "cut off"), (b'] {"more": 1}', "more follows"), (b"],", "more")])
def test_of_a_broken_array_the_whole_elements_are_kept(
    store: LocalTraceStore, file: Write, ending: bytes, message: str
) -> None:
    whole = json.dumps(numbered(5)).encode()[:-1]
    with pytest.raises(IngestError, match=message) as caught:
        ingest([file(whole + (ending or b', {"query": "half'))], store, format_name="auto", default_workload="shop")
    assert caught.value.report is not None and caught.value.report.new == 5


def test_an_export_is_read_by_the_rules_of_the_settings_and_leaves_pulled_records_alone(
    store: LocalTraceStore, file: Write, tmp_path: Path
) -> None:
    observation = {**row("7", 1.7e9), "tags": ["kind:refunds"], "scores": [{"name": "thumbs", "value": 1}]}
    rules = LangfuseSettings(enabled=True, workload_from=("tag:kind:",), feedback_score="thumbs")
    path = file(lines(observation, {**row("8", 1.7e9), "tags": ["kind:refunds"]}))
    content = {"candidates": [{"id": "a", "model": "a.gguf"}], "langfuse": rules.model_dump()}
    configured = configured_formats(parse_settings(content, home=tmp_path, root=tmp_path))
    for workers in (0, 2):
        report = ingest([path], store, format_name="auto", configured=configured, workers=workers)
    assert report.duplicate == 2
    found = {body["id"]: body for body in bodies(store, "refunds")}
    assert {body["source"] for body in found.values()} == {"langfuse"} and found["obs-7"]["feedback"] == {"score": 1.0}

    pulled = PulledRecord(record_of(observation, workload_from=rules.workload_from, source="traffic", feedback={"score": 0}))

    class Langfuse:
        name = "langfuse"

        def pull(self, cursor: str | None, *, deadline: float) -> Pull:
            return Pull("1", (pulled,))

    collect(Langfuse(), store, None, deadline=float("inf"), max_bytes=10**6)
    again = ingest([path], store, format_name="langfuse", configured=configured)
    assert (again.new, again.updated, again.duplicate) == (0, 0, 2)
    kept = {body["id"]: body for body in bodies(store, "refunds")}["obs-7"]
    assert (kept["source"], kept["feedback"]) == ("traffic", {"score": 0})


@pytest.mark.parametrize("form", ["xlam", "auto"])
def test_a_data_set_is_not_passed_off_as_traffic(store: LocalTraceStore, file: Write, form: str) -> None:
    paths = [file(lines(LOG_ROW), "log.jsonl"), file(lines(*numbered(3)))]
    given: Row = {"format_name": form, "default_workload": "shop", "source": "traffic"}
    with pytest.raises(IngestError, match=r"data\.jsonl is xlam.*train_only_sources: \[\].*Nothing was ingested"):
        ingest(paths if form == "auto" else paths[1:], store, **given)
    assert not store.path.exists()
    assert ingest(paths[:1], store, source="traffic").new == 1


@pytest.mark.parametrize("form", [lines, lambda *rows: json.dumps(rows).encode()], ids=["lines", "array"])
def test_standard_input_is_told_too_and_nothing_of_it_is_lost(
    store: LocalTraceStore, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(form(*numbered(300))))))
    report = ingest(["-"], store, format_name="auto", default_workload="shop")
    assert (report.new, report.formats) == (300, {"-": "xlam"})


def test_a_pipe_is_read_once(store: LocalTraceStore) -> None:
    """What a shell's `<(command)` is: a path that can be opened again, but gives its content once."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as out:
        out.write(lines(*numbered(50)))
    report = ingest([f"/dev/fd/{reader}"], store, format_name="auto", default_workload="shop")
    os.close(reader)
    assert report.new == 50


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([XLAM], {}, r"data.jsonl \(xlam\) names no workload.* --format xlam --workload NAME"),
        ([{**TRACER, "agent": None}], {"format_name": "workflow-tracer"}, "names no workload"),
        ([HERMES, SHAREGPT], {"default_workload": "w"}, r"data.jsonl could be .*--format hermes or --format sharegpt"),
        ([{"question": "x"}], {"default_workload": "w"}, "data.jsonl is in no known format"),
        ([XLAM], {"format_name": "alpaca"}, "no format 'alpaca'. Known: auto, log"),
    ],
)
def test_what_must_be_known_first_is_asked_before_anything_is_stored(
    store: LocalTraceStore, file: Write, rows: list[Row], options: dict[str, Any], message: str
) -> None:
    good = file(lines(LOG_ROW), "good.jsonl")
    with pytest.raises(IngestError, match=message) as caught:
        ingest([good, file(lines(*rows))], store, **{"format_name": "auto", **options})
    assert "Nothing was ingested." in str(caught.value)
    assert caught.value.report is None and not store.path.exists()


def test_refused_rows_are_kept_with_their_reason_and_place(store: LocalTraceStore, file: Write) -> None:
    failed = {**TRACER, "success": False, "error": "timed out"}
    path = file(lines(TRACER, failed) + b"{bad\n" + lines(OPENAI))
    report = ingest([path], store, format_name="workflow-tracer")
    assert (report.new, report.reasons) == (1, {"failed_call": 1, "not_json": 1, "missing_field": 1})
    kept = {one.reason: (one.line_number, one.detail) for one in store.rejects()}
    assert kept["failed_call"] == (2, "the call failed: timed out")
    again = ingest([path], store, format_name="workflow-tracer")
    assert (again.new, again.duplicate, again.rejected, len(store.rejects())) == (0, 1, 3, 3)


def test_formats_are_parsed_in_processes_as_they_are_here(
    store: LocalTraceStore, file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel_assets.resources.parse_workers._INLINE_BYTES", 10_000)
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 4096)
    paths = [file(lines(*numbered(80)) + b"{bad\n", "a"), file(json.dumps(numbered(60, HERMES)).encode(), "b")]
    paths.append(file(lines(LOG_ROW), "c"))
    here = LocalTraceStore(tmp_path / "here.sqlite")
    options: dict[str, Any] = {"format_name": "auto", "default_workload": "shop"}
    report = ingest(paths, store, workers=2, **options)
    assert report == ingest(paths, here, workers=0, **options)
    assert (report.new, report.reasons) == (141, {"not_json": 1})
    assert bodies(store) == bodies(here)


PLUGIN = """
class Reply:
    name, title = "reply", "said and replied"
    def recognises(self, value):
        return "said" in value
    def records(self, value):
        message = {"role": "assistant", "content": value["replied"]}
        request = {"messages": [{"role": "user", "content": value["said"]}]}
        return [{"request": request, "response": {"choices": [{"message": message}]}}] * 2
"""


def test_a_format_of_another_package_is_read_here_and_in_processes_and_a_fault_in_it_is_named(
    store: LocalTraceStore, file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 512)
    folder = install(
        tmp_path / "site", "reply_format", PLUGIN, {registry.ENTRY_POINT_GROUP: {"reply": "reply_format:Reply"}}
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    registry._installed.cache_clear()
    rows = [{"said": f"{n}?", "replied": "yes"} for n in range(100)]
    try:
        for inline in (1 << 20, 1):
            monkeypatch.setattr("flywheel_assets.resources.parse_workers._INLINE_BYTES", inline)
            report = ingest([file(lines(*rows))], store, format_name="auto", default_workload=f"w{inline}", workers=1)
            assert (report.new, set(report.formats.values())) == (200, {"reply"})
            broken = file(lines(*rows, {"said": "x"}))
            with pytest.raises(IngestError, match=r"format 'reply' failed on a row \(KeyError: 'replied'\)") as caught:
                ingest([broken], store, format_name="auto", default_workload=f"w{inline}", workers=1)
            assert caught.value.report is not None
    finally:
        registry._installed.cache_clear()
