"""The promises of ingest: every line is counted once, good ones are kept, and it can be repeated."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from flywheel_assets.resources import log_lines
from flywheel_assets.resources.ingest import IngestError, IngestReport, ingest
from flywheel_assets.resources.long_lines import LongLine
from flywheel_assets.resources.parse_workers import _Worker
from flywheel_assets.resources.trace_stores import LocalTraceStore

ROOT = Path(__file__).resolve().parents[2]


def line(number, workload="router", text="hello") -> bytes:
    content = {
        "id": f"r{number}",
        "timestamp": 1_700_000_000 + number,
        "workload_id": workload,
        "client_id": "app",
        "request": {"messages": [{"role": "user", "content": text}]},
        "response": {"choices": [{"message": {"role": "assistant", "content": "hi"}}]},
    }
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode()


def lines(*numbers, **fields) -> bytes:
    return b"".join(line(number, **fields) + b"\n" for number in numbers)


@pytest.fixture
def store(tmp_path):
    store = LocalTraceStore(tmp_path / "store" / "traces.sqlite")
    yield store
    store.close()


@pytest.fixture
def log(tmp_path):
    def write(content: bytes, name="log.jsonl") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def stored(store, workload="router"):
    return [one.id for batch in store.read_after(workload, None) for one in batch]


def test_every_line_is_counted_as_what_it_is(store, log):
    content = lines(1, 2, 1) + b"{bad\n\n  \r\n" + line(3, workload="other") + b"\n" + line(4, workload="") + b"\n"
    path = log(content)
    report = ingest([path], store)
    assert report.to_json() == {
        "new": 3,
        "duplicate": 1,
        "rejected": 2,
        "reasons": {"not_json": 1, "bad_workload_id": 1},
        "workloads": {"other": 1, "router": 2},
    }


def test_repeating_an_ingest_adds_nothing_and_keeps_rejects_once(store, log):
    path = log(lines(1, 2) + b"{bad\n")
    ingest([path], store)
    report = ingest([path], store)
    assert (report.new, report.duplicate, report.rejected, report.workloads) == (0, 2, 1, {})
    (kept,) = store.rejects()
    assert (kept.count, kept.reason, kept.origin, kept.line_number) == (1, "not_json", str(path), 3)


def test_a_changed_content_counts_as_new_and_as_updated(store, log):
    ingest([log(lines(1, 2))], store)
    report = ingest([log(lines(1, text="changed") + lines(2))], store)
    assert (report.new, report.updated, report.duplicate, report.workloads) == (1, 1, 1, {"router": 1})


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstandard.compress,
        lambda content: gzip.compress(content[:100]) + gzip.compress(content[100:]) + b"\0" * 512,
        lambda content: zstandard.compress(content[:100]) + zstandard.compress(content[100:]),
        lambda content: zstandard.ZstdCompressor().compressobj().compress(content) or _streamed(content),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: gzip.compress(b"\xef\xbb\xbf" + content),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.rstrip(b"\n"),
    ],
    ids=[
        "plain",
        "gzip",
        "zstd",
        "gzip-members",
        "zstd-frames",
        "zstd-streamed",
        "bom",
        "gzip-bom",
        "crlf",
        "no-last-newline",
    ],
)
def test_a_log_is_read_by_what_it_holds_and_not_by_its_name(store, log, pack):
    report = ingest([log(pack(lines(1, 2, 3)), "misleading.txt")], store)
    assert (report.new, report.rejected) == (3, 0)


def _streamed(content):
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(content) + packer.flush()


def test_several_logs_and_standard_input_are_one_ingest(store, log, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(lines(1, 2)))))
    report = ingest([log(lines(2, 3)), "-", log(zstandard.compress(lines(4)), "b")], store)
    assert (report.new, report.duplicate) == (4, 1)
    assert stored(store) == ["r2", "r3", "r1", "r4"]


def test_an_empty_log_is_no_error(store, log):
    assert ingest([log(b""), log(gzip.compress(b""), "b"), log(b"\n\n", "c")], store) == IngestReport()


def test_the_defaults_fill_in_where_a_record_names_none(store, log):
    report = ingest([log(lines(1, workload=None) + lines(2))], store, default_workload="My App", source="import")
    assert report.workloads == {"my-app-96c6f417": 1, "router": 1}
    ((one,),) = store.read_after("my-app-96c6f417", None)
    assert json.loads(one.body)["source"] == "import"


@pytest.mark.parametrize("missing", ["nowhere.jsonl", "."])
def test_a_missing_file_stops_everything_before_it_begins(store, log, tmp_path, missing):
    with pytest.raises(IngestError, match="Nothing was ingested") as caught:
        ingest([log(lines(1)), tmp_path / missing], store)
    assert caught.value.report is None and not store.path.exists()


def test_unusable_arguments_are_refused_before_anything_is_read(store, log):
    path = log(lines(1))
    for sources, options, message in (
        ([], {}, "no log file"),
        (["-", "-"], {}, "2 times"),
        ([path], {"default_workload": "!!"}, "default workload"),
        ([path], {"source": ""}, "source"),
    ):
        with pytest.raises(IngestError, match=message):
            ingest(sources, store, **options)
    assert not store.path.exists()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_of_a_log_that_is_cut_off_the_whole_lines_are_kept_and_so_are_the_other_logs(store, log, pack):
    # Text that does not compress: what remains of the file then holds about as many lines as it has bytes.
    whole = b"".join(line(n, text=os.urandom(300).hex()) + b"\n" for n in range(1000))
    packed = pack(whole)
    cut = log(packed[: len(packed) * 2 // 3], "cut")
    with pytest.raises(IngestError, match=r"cut is cut off .* ingest it again") as caught:
        ingest([cut, log(lines(5000))], store)
    report = caught.value.report
    assert 300 < report.new < 1000 and report.rejected == 0
    assert stored(store) == [f"r{n}" for n in range(report.new - 1)] + ["r5000"]
    cut.write_bytes(packed)
    again = ingest([cut], store)
    assert again.new + again.duplicate == 1000 and again.duplicate == report.new - 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_damaged_log_is_named(store, log, pack):
    packed = bytearray(pack(lines(*range(500))))
    packed[len(packed) // 2 : len(packed) // 2 + 20] = b"\xff" * 20
    with pytest.raises(IngestError, match=r"log\.jsonl is damaged"):
        ingest([log(bytes(packed))], store)


@pytest.mark.parametrize(("magic", "kind"), [(b"PK\x03\x04", "zip"), (b"BZh9", "bzip2"), (b"PAR1", "Parquet")])
def test_a_file_of_another_kind_is_named_as_what_it_is(store, log, magic, kind):
    with pytest.raises(IngestError, match=f"is a {kind} file"):
        ingest([log(magic + b"\0" * 100)], store)


def test_an_oversize_line_is_skipped_without_being_held(store, log, monkeypatch):
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 4096)
    huge = b'{"huge": "' + b"x" * 3_000_000 + b'"}\n'
    held = []
    cut = LongLine.extend
    monkeypatch.setattr(LongLine, "extend", lambda self, more: held.append(len(more)) or cut(self, more))
    path = log(lines(1) + huge + lines(2) + huge)
    report = ingest([path], store, max_bytes=10_000)
    assert (report.new, report.reasons) == (2, {"oversize": 2})
    assert max(held) <= 10_000 + 4096
    (kept,) = store.rejects()
    assert (kept.count, kept.detail) == (1, "3000012 bytes, 10000 are allowed (local.max_record_bytes)")


def test_lines_are_numbered_across_blocks_blanks_and_long_ones(store, log, monkeypatch):
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 64)
    log_path = log(lines(1) + b"\n\n" + b"x" * 5000 + b"\n" + lines(2) + b"{bad\n")
    ingest([log_path], store, max_bytes=1000)
    assert {kept.reason: kept.line_number for kept in store.rejects()} == {"oversize": 4, "not_json": 6}


def test_a_compressed_bomb_takes_little_memory(store, log):
    bomb = log(zstandard.compress(b"\0" * 300_000_000))
    tracemalloc.start()
    try:
        report = ingest([bomb], store, max_bytes=100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.reasons == {"oversize": 1} and peak < 150_000_000


def test_progress_tells_how_far_it_is_and_where(store, log, monkeypatch):
    monkeypatch.setattr("flywheel_assets.resources.ingest._BATCH_RECORDS", 10)
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 512)
    path, told = log(lines(*range(30)) + b"{bad\n"), []
    ingest([path], store, progress=lambda done, origin: told.append((done, origin)))
    assert [done for done, _ in told] == sorted({done for done, _ in told}) and len(told) > 2
    assert told[-1] == (31, str(path))


def test_parsing_in_processes_gives_what_parsing_here_gives(store, log, tmp_path, monkeypatch):
    monkeypatch.setattr("flywheel_assets.resources.parse_workers._INLINE_BYTES", 10_000)
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 4096)
    content = lines(*range(400)) + b"{bad\n" + b"x" * 60_000 + b"\n" + lines(*range(300, 500), workload="Other App")
    path, here = log(content), LocalTraceStore(tmp_path / "here.sqlite")
    report = ingest([path], store, max_bytes=50_000, workers=2)
    assert report == ingest([path], here, max_bytes=50_000, workers=0)
    assert report.reasons == {"not_json": 1, "oversize": 1} and report.new == 600
    for slug in report.workloads:
        assert list(store.read_after(slug, None)) == list(here.read_after(slug, None))
    assert store.rejects() == here.rejects()


def test_a_parsing_process_that_dies_is_reported_and_what_is_stored_stays(store, log, monkeypatch):
    monkeypatch.setattr("flywheel_assets.resources.parse_workers._INLINE_BYTES", 1)
    monkeypatch.setattr(log_lines, "_BLOCK_BYTES", 1024)
    submit = _Worker.submit

    def submit_and_die(worker, chunk):
        submit(worker, chunk)
        worker._process.kill()

    monkeypatch.setattr(_Worker, "submit", submit_and_die)
    with pytest.raises(IngestError, match=r"ended with code -9 .* run the same command again") as caught:
        ingest([log(lines(*range(100)))], store, workers=1)
    assert caught.value.report.new == len(stored(store)) > 0


def test_killing_an_ingest_leaves_whole_batches_and_no_child_and_the_next_one_completes_it(store, log):
    path = log(lines(*range(24_000), text="x" * 2000))
    script = (
        "import sys; from flywheel_assets.resources.ingest import ingest;"
        "from flywheel_assets.resources.trace_stores import LocalTraceStore;"
        "ingest([sys.argv[1]], LocalTraceStore(sys.argv[2]), workers=2, progress=lambda n, o: print(n, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, path, store.path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while int(process.stdout.readline()) < 10_000:
        pass
    process.send_signal(signal.SIGKILL)
    # Every process of the ingest holds the error pipe: its end is the end of the last of them.
    _, said = process.communicate(timeout=60)
    assert said == b""
    kept = store.summary("router").count
    assert 0 < kept < 24_000 and stored(store) == [f"r{n}" for n in range(kept)]
    report = ingest([path], store)
    assert (report.new, report.duplicate) == (24_000 - kept, kept)
