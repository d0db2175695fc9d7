"""What a second evaluation asks: `flywheel run` after 5% new records, after a new gate, and after a change of metrics.

A local OpenAI-compatible server counts what it is asked; everything between the command line and that socket is real.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.demo import flywheel_in, fresh_folder
from benchmarks.figure import figure
from benchmarks.synthetic import write_records
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.graph import BASE, Partition
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.settings import parse_settings
from tests.fakes import OpenAIDouble

RECORDS = 1_000
NEW_RECORDS = RECORDS // 20
WORKLOAD = "bench"
_EVAL_SIZE = 400
_VARIANTS = 2  # base and prefixed; a remote endpoint cannot load an adapter
_SCORED = f"evals/base of {WORKLOAD} x remote"
_DECIDED = f"decision of {WORKLOAD}"


def bench_incremental_evaluation() -> dict[str, object]:
    """Calls of the second evaluation over its rows. Met where every new row is asked once a variant and nothing else is."""
    with tempfile.TemporaryDirectory() as folder, OpenAIDouble() as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}
        root = fresh_folder(
            Path(folder),
            lambda content: content.update(
                candidates=[remote],
                split={**content["split"], "eval_size": _EVAL_SIZE},
                # Synthetic questions are near-duplicates of each other: they would be few clusters.
                cleaning={**content["cleaning"], "near_duplicates": False},
            ),
        )
        _ingest(root, RECORDS, seed=0)
        first = _calls_of_run(root, double, _SCORED)
        before = _eval_rows(root)
        _ingest(root, NEW_RECORDS, seed=1)
        second = _calls_of_run(root, double, _SCORED)
        after = _eval_rows(root)
        _edit(root, decision={"gates": [{"metric": "no_call", "margin": 0.2}]})
        after_gate = _calls_of_run(root, double, _DECIDED)
        _edit(root, workloads={WORKLOAD: {"workload_type": "generic"}})
        after_metrics = _calls_of_run(root, double, _SCORED)
    if first != len(before) * _VARIANTS or not before < after | before or after == before:
        raise RuntimeError(f"{first} calls for {len(before)} rows, then {len(after)} rows: the figure would mean nothing")
    new = len(after - before)
    value = round(second / (len(after) * _VARIANTS), 4)
    target = round(new / len(after), 4)
    ok = second == new * _VARIANTS and after_gate == after_metrics == 0
    line = figure("incremental_eval_calls_ratio", value, "ratio", "lower", target, ok=ok)
    return {
        **line,
        "rows": len(after),
        "new_rows": new,
        "calls": second,
        "calls_after_new_gate": after_gate,
        "calls_after_other_metrics": after_metrics,
    }


def _ingest(root: Path, records: int, seed: int) -> None:
    path = root / f"records-{seed}.jsonl"
    write_records(path, records, seed, workload=WORKLOAD)
    flywheel_in(root, "ingest", str(path))


def _calls_of_run(root: Path, double: OpenAIDouble, made: str) -> int:
    """Chat requests of one `flywheel run`, which must have made what it was run for."""
    asked = double.count
    materialized = json.loads(flywheel_in(root, "run", "--json").stdout)["materialized"]
    if made not in materialized:
        raise RuntimeError(f"the run did not make {made} but {materialized}: the figure would mean nothing")
    return double.count - asked


def _eval_rows(root: Path) -> set[str]:
    content = yaml.safe_load((root / "flywheel.yaml").read_text())
    flywheel = Flywheel.at_home(parse_settings(content, home=root / ".flywheel", root=root))
    base = flywheel.artifacts.current(BASE, Partition(WORKLOAD))
    if base is None:
        raise RuntimeError(f"workload '{WORKLOAD}' has no datasets")
    return {row.row_id for row in read_eval_rows(base.path)}


def _edit(root: Path, **changes: Any) -> None:
    path = root / "flywheel.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))


if __name__ == "__main__":
    print(json.dumps(bench_incremental_evaluation()))
