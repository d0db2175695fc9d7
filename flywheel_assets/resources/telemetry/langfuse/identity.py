"""Identity: the ids under which Langfuse knows our things. What is told twice has one id, and stays one thing."""

from __future__ import annotations

import hashlib
import json

from flywheel_assets.resources.telemetry.phases import Phase

_SPAN_DIGITS, _TRACE_DIGITS = 16, 32


def digest(seed: str, digits: int = _SPAN_DIGITS) -> str:
    """Hexadecimal digits that only this seed has."""
    return hashlib.sha256(seed.encode()).hexdigest()[:digits]


def seed_of(phase: Phase) -> str:
    """What tells a phase from any other: its Dagster run, and its asset there. The judge of two assets is two phases."""
    return f"{phase.dagster_run}/{phase.assets[0]}/{phase.name}"


def trace_id_of(seed: str) -> str:
    """A trace's id; `Langfuse.create_trace_id(seed=...)` of the SDK gives the same."""
    return digest(seed, _TRACE_DIGITS)


def dataset_name(workload: str) -> str:
    """The dataset that holds a workload's eval rows; Langfuse shows `/` as a folder."""
    return f"flywheel/{workload}"


def item_id(workload: str, row_id: str) -> str:
    """The dataset item of an eval row: unique within a project, as Langfuse asks for."""
    return digest(f"{dataset_name(workload)}/{row_id}", _TRACE_DIGITS)


def experiment_id(project: str, dataset_id: str, name: str) -> str:
    """The id that server and SDK give to the experiment `name` on a dataset."""
    parts = ["langfuse-experiment-v1", project, dataset_id, name]
    return digest(json.dumps(parts, separators=(",", ":"), ensure_ascii=False))
