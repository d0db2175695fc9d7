"""How fast records are scrubbed and near-duplicates found: 3 kB each, on every core, beside the libraries' defaults.

What is timed is `update_records` with cleaning on: read, validate, scrub, sign, write. The peer does scrubbing and signing
alone, on a smaller sample of the same records and in as many processes: detect-secrets with its default plugins on every
text, phonenumbers' own matcher, and datasketch's MinHash and LSH with their defaults; null where they are not installed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figure import figure
from benchmarks.synthetic import record_lines
from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.core.datasets import update_records
from flywheel_assets.core.records import Record, parse_record

RECORDS = 20_000
PEER_RECORDS = 100
TARGET = 2_000
MAX_BYTES = 4_000_000
# One record in ten holds something to replace.
_SEEDED = "Write to customer{n}@mail.example.org or call +49 30 901820{n:02d}; the key is sk-proj-{n:040d}x."


class _Stored(NamedTuple):
    id: str
    body: bytes


def bench_scrub_dedup(records: int = RECORDS) -> dict[str, object]:
    """Records a second, wall time, from stored records to a scrubbed records folder with near-duplicate keys."""
    stored = list(_stored(records))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = update_records(None, [stored], Path(folder) / "records", max_bytes=MAX_BYTES, cleaning=CleaningPolicy())
        value = round(records / (time.perf_counter() - started))
    if summary.scrubbed.get("email", 0) < records // 10:
        raise RuntimeError(f"scrubbed {summary.scrubbed} of {records} records: the figure would mean nothing")
    peer = _peer(stored[:PEER_RECORDS])
    return figure("scrub_dedup_records_per_s", value, "records/s", "higher", TARGET, peer=peer)


def _stored(records: int) -> Iterator[_Stored]:
    for n, line in enumerate(record_lines(records)):
        content = json.loads(line)
        if n % 10 == 0:
            content["request"]["messages"][-1]["content"] += " " + _SEEDED.format(n=n)
        record = parse_record(json.dumps(content).encode(), max_bytes=MAX_BYTES, received_at=time.time())
        if not isinstance(record, Record):
            raise RuntimeError(f"a synthetic record was refused: {record.detail}")
        yield _Stored(record.id, record.body)


def _peer(stored: list[_Stored]) -> float | None:
    if find_spec("detect_secrets") is None or find_spec("datasketch") is None:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [[record.body for record in stored[start::cores]] for start in range(cores)]
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(_with_defaults, [part[:1] for part in parts]))  # imports are not part of the work
        started = time.perf_counter()
        list(pool.map(_with_defaults, parts))
        return round(len(stored) / (time.perf_counter() - started), 1)


def _with_defaults(bodies: list[bytes]) -> int:
    import phonenumbers
    from datasketch import MinHash, MinHashLSH
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import default_settings

    found = 0
    lsh = MinHashLSH()
    with default_settings():
        for number, body in enumerate(bodies):
            record = json.loads(body)
            for text in _texts(record):
                found += sum(1 for line in text.splitlines() for _ in scan_line(line))
                found += sum(1 for _ in phonenumbers.PhoneNumberMatcher(text, "US"))
            signature = MinHash()
            words = record["request"]["messages"][-1]["content"].split()
            signature.update_batch([" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)])
            found += len(lsh.query(signature))
            lsh.insert(number, signature)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


if __name__ == "__main__":
    print(json.dumps(bench_scrub_dedup()))
