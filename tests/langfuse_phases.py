"""Phases for tests of the Langfuse observer, with artifacts that hold real eval rows and predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.datasets.eval_file import EVAL_FILE
from flywheel_assets.core.datasets.rendering import eval_lines
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.predictions import build_report, write_predictions
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, Variant, WorkloadType
from flywheel_assets.resources.artifacts import Artifact, ArtifactStore, Made
from flywheel_assets.resources.telemetry import Ended, Phase, PhaseKind, PhaseStatus, Span
from flywheel_assets.settings import Settings, parse_settings

WORKLOAD, CELL = Partition("tickets"), Partition("tickets", "small")


def settings(home: Path, **langfuse: Any) -> Settings:
    """Settings of a flywheel in `home` that tells Langfuse."""
    content = {
        "candidates": [{"id": "small", "model": "small.gguf"}],
        "telemetry": {"langfuse": {"enabled": True, **langfuse}},
    }
    return parse_settings(content, home=home, root=home)


def patient(monkeypatch: pytest.MonkeyPatch, *, call_s: float = 30.0) -> None:
    """Time enough for everything, however busy the machine is: for tests that are about what is told."""
    where = "flywheel_assets.resources.telemetry."
    for limit in ("watch.FLUSH_S", "watch.KILLED_FLUSH_S", "langfuse.observer.FLUSH_S", "langfuse.observer.KILLED_FLUSH_S"):
        monkeypatch.setattr(where + limit, 60.0)
    monkeypatch.setattr(where + "langfuse.observer._BEGIN_S", 60.0)
    monkeypatch.setattr(where + "langfuse.service.CALL_S", call_s)


def phase(kind: PhaseKind, asset: str, partition: Partition = CELL, run: str = "run-1") -> Phase:
    url = f"http://dagster:3000/runs/{run}"
    return Phase(kind, asset, (asset,), partition, run, "turn-1", url, time.time() - 2, inputs={asset: {"a@b": "v1"}})


EVALUATION = phase(PhaseKind.EVALUATION, graph.EVALS[Variant.BASE])
DATASET = phase(PhaseKind.DATASET, graph.BASE, WORKLOAD, "run-0")


def rows(number: int) -> list[EvalRow]:
    return [
        EvalRow(
            row_id=f"row-{n:05d}",
            trace_id=f"trace-{n}",
            cluster=f"cluster-{n}",
            request={"messages": [{"role": "user", "content": f"private question {n}"}]},
            reference=Answer(f"private answer {n}"),
            suite_turns="single_turn",
        )
        for n in range(number)
    ]


def published_base(store: ArtifactStore, examined: Sequence[EvalRow], key: str = "base") -> Artifact:
    """A version of `datasets/base` with these rows."""
    with store.draft() as draft:
        (draft.path / EVAL_FILE).write_bytes(b"".join(eval_lines([_line(row) for row in examined])))
        return published(store, draft, graph.BASE, WORKLOAD, {"eval_rows": len(examined)}, key)


def published_evaluation(store: ArtifactStore, examined: Sequence[EvalRow], right: int) -> Artifact:
    """A version of `evals/base` in which the first `right` rows are right, the last one errored, and the others wrong."""
    answers = [
        Prediction(row.row_id, row.reference if n < right else Answer("something else"), 20.0, 5, 6)
        for n, row in enumerate(examined)
    ]
    answers[-1] = replace(answers[-1], answer=None, error="no answer to: private question")
    report = build_report(WorkloadType.GENERIC, examined, answers)
    with store.draft() as draft:
        write_predictions(draft.path / "predictions.parquet", WorkloadType.GENERIC, examined, answers)
        return published(store, draft, graph.EVALS[Variant.BASE], CELL, report.to_status(), f"{len(examined)}/{right}")


def finished(*artifacts: Artifact, **more: Any) -> Ended:
    now = time.time()
    return Ended(PhaseStatus.FINISHED, now, (Span("asking", now - 1, now - 0.2),), artifacts, **more)


def _line(row: EvalRow) -> dict[str, Any]:
    content = {"role": "assistant", "content": row.reference.content}
    return {
        "row_id": row.row_id,
        "trace_id": row.trace_id,
        "cluster": row.cluster,
        "request": row.request,
        "response": {"choices": [{"message": content}]},
        "suite_turns": row.suite_turns,
        "suite_complexity": None,
        "suite_domain": None,
    }


def published(store: ArtifactStore, draft: Any, asset: str, at: Partition, summary: Any, key: str) -> Artifact:
    made = Made(f"{key}-0123456789abcdef", summary)
    return store.publish(
        draft, asset, at, made, inputs_key=key, inputs={}, settings={}, code_version="1", origin={"dagster_run": "r"}
    )


def folder_store(home: Path) -> ArtifactStore:
    return ArtifactStore(home / "artifacts")
