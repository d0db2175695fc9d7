"""The demo, timed: whole, with one candidate, and a second `flywheel run` with nothing new.

Each in a folder that has never seen it, through the command line. The models come from the package index; fetching them
is not part of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figure import figure
from tests.fakes import OpenAIDouble

REPOSITORY = Path(__file__).resolve().parents[1]
Line = dict[str, object]


def bench_demo() -> Iterator[Line]:
    """Both candidates, and the share of that time in which no model was loaded, trained or asked."""
    with tempfile.TemporaryDirectory() as folder:
        root = fresh_folder(Path(folder))
        wall = _demo(root)
        yield figure("demo_wall_s", round(wall, 3), "s", "lower", 720)
        busy = _union([tuple(span) for span in _busy_spans(root)])
        yield figure("orchestration_share", round(1 - busy / wall, 3), "share", "lower", 0.10)


def bench_one_candidate() -> Iterator[Line]:
    """`smollm2-135m` alone."""
    with tempfile.TemporaryDirectory() as folder:
        root = fresh_folder(Path(folder), lambda content: content.update(candidates=content["candidates"][:1]))
        yield figure("demo_one_candidate_wall_s", round(_demo(root), 3), "s", "lower", 420)


def bench_noop_run() -> Iterator[Line]:
    """`flywheel run` right after a run: the whole process, nothing to do, and no model called (a double counts)."""
    with tempfile.TemporaryDirectory() as folder, OpenAIDouble() as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}
        root = fresh_folder(Path(folder), lambda content: content.update(candidates=[remote]))
        _records(root)
        flywheel_in(root, "run")
        asked = double.count
        began = time.monotonic()
        done = flywheel_in(root, "run", "--json")
        wall = time.monotonic() - began
        if json.loads(done.stdout)["materialized"] or double.count != asked or not asked:
            raise RuntimeError(f"the second run was no second run: {done.stdout}, {double.count - asked} model calls")
        yield figure("noop_run_s", round(wall, 3), "s", "lower", 15)


def fresh_folder(root: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """`root` with this clone's configuration, edited: a flywheel that has seen nothing yet."""
    content = yaml.safe_load((REPOSITORY / "flywheel.yaml").read_text())
    if edit is not None:
        edit(content)
    (root / "flywheel.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in ("dagster.yaml", "workspace.yaml"):
        (root / name).write_text((REPOSITORY / name).read_text())
    return root


def _demo(root: Path) -> float:
    """Wall seconds of the demo after fetching."""
    script = (
        "from pathlib import Path; from flywheel_assets.demo import prepare; "
        "prepare(Path('.flywheel').resolve(), False, print)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=root, env=_environment(root), check=True, stdout=sys.stderr)
    began = time.monotonic()
    flywheel_in(root, "demo")
    return time.monotonic() - began


def _busy_spans(root: Path) -> Iterator[list[float]]:
    for manifest in (root / ".flywheel" / "artifacts" / "objects").rglob("manifest.json"):
        summary = json.loads(manifest.read_text())["summary"]
        if "model_busy" in summary:
            yield summary["model_busy"]


def _union(spans: list[tuple[float, ...]]) -> float:
    """Seconds covered by at least one span: cells overlap in time."""
    covered, end = 0.0, 0.0
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _records(root: Path) -> None:
    from benchmarks.synthetic import write_records

    path = root / "records.jsonl"
    write_records(path, 500)
    flywheel_in(root, "ingest", str(path))


def flywheel_in(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One command of the command line, as a process of its own."""
    command = [sys.executable, "-m", "flywheel_assets.cli", *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(root), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": str(root), "FLYWHEEL_HOME": str(root / ".flywheel")}
