"""Records to datasets (parse, validate, de-duplicate, split, format, write): speed, memory, and the price of 1% more.

What belongs here: the three measurements. What does not: the trace store (`ingest`); its batches are read from a file of
stored records, so that what is timed is data preparation alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figure import figure
from benchmarks.synthetic import write_records
from flywheel_assets.core.datasets import SplitPolicy, build_datasets, profile_workload, update_records
from flywheel_assets.core.records import Record, parse_record

SPEED_RECORDS = 200_000
INCREMENTAL_RECORDS = 100_000
SPEED_TARGET = 20_000
PEAK_TARGET_MB = 1_000
FLAT = 1.25
RATIO_TARGET = 0.10
MAX_BYTES = 4_000_000
_BATCH = 1_000
_SAMPLE_S = 0.02


class _Stored(NamedTuple):
    """What a trace store hands over."""

    id: str
    body: bytes


def bench_dataprep_speed(records: int = SPEED_RECORDS) -> dict[str, object]:
    """Records a second, wall time, from stored records to written datasets."""
    with tempfile.TemporaryDirectory() as folder:
        stored = _write_stored(Path(folder), records)
        value = round(records / _prepare(stored, Path(folder) / "first", None))
    return figure("dataprep_records_per_s", value, "records/s", "higher", SPEED_TARGET)


def bench_dataprep_peak(records: int) -> dict[str, object]:
    """Peak resident memory in MB of data preparation and its workers together, in a process of its own.

    The larger of two measures: the sum over all processes, sampled, and the kernel's own peak of the first process.
    """
    return figure(f"dataprep_peak_mb_{records // 1000}k", _peak_mb(records), "MB", "lower", PEAK_TARGET_MB)


def bench_dataprep_peak_1m(records: int = 1_000_000, fewer: int = 100_000) -> dict[str, object]:
    """The same for a million records; met only where it is flat, too: as `peer` shows, no more than for a tenth of them.

    Flat is up to FLAT times that: allocators keep what they freed, so that equal work never peaks at equal megabytes.
    """
    smaller, value = _peak_mb(fewer), _peak_mb(records)
    met = value <= PEAK_TARGET_MB and value <= FLAT * smaller
    peer = {"records": fewer, "value": smaller}
    return figure("dataprep_peak_mb_1m", value, "MB", "lower", PEAK_TARGET_MB, ok=met, peer=peer)


def _peak_mb(records: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        stored = _write_stored(Path(folder), records)
        context = multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        child = context.Process(target=_report_peak, args=(stored, Path(folder) / "first", answers))
        child.start()
        child.join()
        if child.exitcode != 0:
            raise RuntimeError(f"data preparation of {records} records ended with exit code {child.exitcode}")
        return round(answers.get())


def bench_incremental_ratio(records: int = INCREMENTAL_RECORDS) -> dict[str, object]:
    """Wall time of data preparation with 1% new records, as a share of the first one's."""
    with tempfile.TemporaryDirectory() as folder:
        stored = _write_stored(Path(folder), records)
        new = _write_stored(Path(folder), records // 100, seed=1)
        first = _prepare(stored, Path(folder) / "first", None)
        second = _prepare(new, Path(folder) / "second", Path(folder) / "first")
    value = round(second / first, 4)
    return figure("incremental_ratio", value, "ratio", "lower", RATIO_TARGET)


def _prepare(stored: Path, out: Path, previous: Path | None) -> float:
    """Run data preparation once; seconds."""
    started = time.perf_counter()
    update_records(previous and previous / "records", _batches(stored), out / "records", max_bytes=MAX_BYTES)
    profile_workload(out / "records")
    build_datasets(
        out / "records",
        previous and previous / "base",
        out / "base",
        out / "train",
        workload="bench",
        policy=SplitPolicy(),
        previous_train=previous and previous / "train",
    )
    return time.perf_counter() - started


def _write_stored(folder: Path, records: int, seed: int = 0) -> Path:
    """A file of records as a trace store keeps them: an id, a tab, the canonical body."""
    log, stored = folder / f"log-{seed}.jsonl", folder / f"stored-{seed}"
    write_records(log, records, seed)
    with log.open("rb") as lines, stored.open("wb") as file:
        for line in lines:
            record = parse_record(line, max_bytes=MAX_BYTES, received_at=time.time())
            if not isinstance(record, Record):
                raise RuntimeError(f"a synthetic record was refused: {record.detail}")
            file.write(record.id.encode() + b"\t" + record.body + b"\n")
    log.unlink()
    return stored


def _batches(stored: Path) -> Iterator[list[_Stored]]:
    with stored.open("rb") as file:
        batch: list[_Stored] = []
        for line in file:
            name, _, body = line.partition(b"\t")
            batch.append(_Stored(name.decode(), body[:-1]))
            if len(batch) == _BATCH:
                yield batch
                batch = []
        yield batch


def _report_peak(stored: Path, out: Path, answers: multiprocessing.SimpleQueue[float]) -> None:
    ended = threading.Event()
    sampled: list[float] = []
    sampler = threading.Thread(target=lambda: sampled.append(_sampled_peak_mb(ended)))
    sampler.start()
    _prepare(stored, out, None)
    ended.set()
    sampler.join()
    answers.put(max(sampled[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _sampled_peak_mb(ended: threading.Event) -> float:
    """The largest sum of resident memory of this process and its children, until `ended`. Linux's /proc only."""
    page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
    peak = 0.0
    while not ended.wait(_SAMPLE_S):
        pages = 0
        for pid in (os.getpid(), *_children()):
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended between listing and looking
        peak = max(peak, pages * page_mb)
    return peak


def _children() -> list[int]:
    children: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            children += [int(pid) for pid in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue  # a thread that ended
    return children


if __name__ == "__main__":
    print(json.dumps(bench_dataprep_speed()), flush=True)
    print(json.dumps(bench_incremental_ratio()), flush=True)
    print(json.dumps(bench_dataprep_peak(100_000)), flush=True)
    print(json.dumps(bench_dataprep_peak_1m()), flush=True)
