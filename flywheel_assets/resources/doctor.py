"""Doctor: what is configured, what of it is there, and of which version. Never a secret, only whether one is set."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec

from flywheel_assets import __version__, system
from flywheel_assets.core.judge.calibration import MIN_LABELS
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.judge.choice import JudgeError, read_labels
from flywheel_assets.resources.model_identity import model_path
from flywheel_assets.resources.nemo.health import examine_cluster
from flywheel_assets.resources.serving import RemoteModel, Serving, ServingError, remote_endpoint
from flywheel_assets.resources.sources import CheckedSource, SourceError, enabled_sources
from flywheel_assets.resources.telemetry.mlflow.health import examine_mlflow
from flywheel_assets.settings import Candidate, Engine, JudgeSettings, Settings

_TRAINING_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo")
_SERVING_PACKAGES = ("xllamacpp",)
_BASE_PACKAGES = ("dagster", "openai", "pyarrow")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is the next step where it is not ok."""

    what: str
    ok: bool
    found: str
    advice: str = ""

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything flywheel.yaml names. Reaches out to configured endpoints only."""
    return [
        *_machine(settings),
        *_packages(settings),
        *_stores(settings),
        *_sources(settings),
        *_cluster(settings),
        *_candidates(settings),
        *_judges(settings),
        *_mlflow(settings),
    ]


def _machine(settings: Settings) -> Iterator[Finding]:
    # What is installed already needs no room for its installation; free disk is a finding of its own.
    faults = system.faults(needed_gb=0)
    yield Finding("machine", not faults, "; ".join(faults) or f"supported: {system.SUPPORTED}")
    free = shutil.disk_usage(settings.root).free / 1e9
    yield Finding("disk", free > 2, f"{free:.0f} GB free", "" if free > 2 else "free some space: adapters need room")
    yield Finding("settings", True, f"{settings.root / 'flywheel.yaml'}, home {settings.home}, version {__version__}")


def _packages(settings: Settings) -> Iterator[Finding]:
    yield Finding("base packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _BASE_PACKAGES))
    local = [candidate for candidate in settings.candidates if candidate.engine is Engine.XLLAMACPP]
    if local:
        yield _installed("serving", _SERVING_PACKAGES)
    if any(candidate.trainable for candidate in local):
        yield _installed("training", _TRAINING_PACKAGES)


def _installed(what: str, packages: tuple[str, ...]) -> Finding:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        return Finding(f"{what} packages", False, f"not installed: {', '.join(missing)}", "run `make setup`")
    return Finding(f"{what} packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))


def _stores(settings: Settings) -> Iterator[Finding]:
    if settings.trace_store == "elasticsearch":
        # Imported here: whoever keeps traces in a file needs none of it.
        from flywheel_assets.resources.trace_stores.elasticsearch.health import examine_server

        health = examine_server(settings.elasticsearch)
        yield Finding("trace store", health.ok, health.found, health.advice)
        return
    try:
        summaries = Flywheel.at_home(settings).traces.workloads()
    except sqlite3.DatabaseError as error:
        yield Finding("trace store", False, str(error), f"move {settings.home / 'traces.sqlite'} aside and ingest again")
        return
    records = sum(summary.count for summary in summaries)
    advice = "" if summaries else "`flywheel ingest FILE`, or `make demo`"
    yield Finding("trace store", True, f"{records:,} records of {len(summaries)} workloads", advice)


def _sources(settings: Settings) -> Iterator[Finding]:
    try:
        sources = enabled_sources(settings)
    except SourceError as error:
        yield Finding("sources", False, str(error))
        return
    for source in sources:
        if isinstance(source, CheckedSource):
            status = source.check()
            yield Finding(f"source {source.name}", status.ok, status.found, status.advice)
        else:
            yield Finding(f"source {source.name}", True, "switched on; it has no check of its own")


def _cluster(settings: Settings) -> Iterator[Finding]:
    if settings.platform == "nemo":
        yield from (Finding(one.what, one.ok, one.found, one.advice) for one in examine_cluster(settings))


def _candidates(settings: Settings) -> Iterator[Finding]:
    for candidate in settings.candidates:
        if candidate.nim is None:  # Those are looked at with their cluster.
            yield _candidate(settings, candidate)


def _candidate(settings: Settings, candidate: Candidate) -> Finding:
    return _endpoint(candidate) if candidate.is_remote else _weights(settings, candidate)


def _judges(settings: Settings) -> Iterator[Finding]:
    """Every judge that some workload has, and its labels."""
    found: set[tuple[str, str | None]] = set()
    for slug in ("", *settings.workloads):
        judge = settings.judge_for(slug)
        what = f"judge of {slug}" if slug else "judge"
        if not judge.is_configured and not slug:
            yield Finding(what, True, "none: no answer is judged (docs/judge.md)")
        if not judge.is_configured or (judge.name, judge.labels) in found:
            continue
        found.add((judge.name, judge.labels))
        yield _judge(settings, judge, what)
        if judge.labels is not None:
            yield _labels(settings, slug, what)


def _judge(settings: Settings, judge: JudgeSettings, what: str) -> Finding:
    if judge.candidate is not None:
        there = _candidate(settings, settings.candidate(judge.candidate))
        return replace(there, what=what, found=f"candidate {judge.candidate}: {there.found}")
    key = judge.api_key_env
    known = "" if key is None else f", {key} is {'set' if os.environ.get(key) else 'NOT set'}"
    try:
        # Asked once: whoever runs this wants to know how it stands, not to wait for it.
        endpoint = remote_endpoint(RemoteModel("judge", judge.model or "", judge.model_name, key))
    except ServingError as error:
        return Finding(what, False, f"{judge.model}{known}", str(error))
    return Finding(what, True, f"{endpoint.base_url} serves {endpoint.model}{known}")


def _labels(settings: Settings, slug: str, what: str) -> Finding:
    try:
        labels = read_labels(settings, slug)
    except JudgeError as error:
        return Finding(f"{what}, labels", False, str(error))
    right = sum(label.right for label in labels)
    enough = min(right, len(labels) - right) >= MIN_LABELS
    advice = "" if enough else f"label at least {MIN_LABELS} answers of each kind"
    return Finding(f"{what}, labels", enough, f"{right} right, {len(labels) - right} wrong", advice)


def _mlflow(settings: Settings) -> Iterator[Finding]:
    if settings.telemetry.mlflow.enabled:
        health = examine_mlflow(settings)
        yield Finding("MLflow", health.ok, health.found, health.advice)


def _weights(settings: Settings, candidate: Candidate) -> Finding:
    path = model_path(settings, candidate)
    if path.is_file():
        return Finding(f"candidate {candidate.id}", True, f"{path} ({path.stat().st_size / 1e6:.0f} MB)")
    if path.is_dir():
        return Finding(f"candidate {candidate.id}", True, str(path))
    advice = "`make demo` fetches the demo's models; otherwise mend `model` in flywheel.yaml"
    return Finding(f"candidate {candidate.id}", False, f"{path} does not exist", advice)


def _endpoint(candidate: Candidate) -> Finding:
    key = candidate.api_key_env
    known = "" if key is None else f", {key} is {'set' if os.environ.get(key) else 'NOT set'}"
    try:
        with Serving().deployed(candidate, adapter_gguf=None, owner="doctor") as endpoint:
            return Finding(f"candidate {candidate.id}", True, f"{endpoint.base_url} serves {endpoint.model}{known}")
    except ServingError as error:
        return Finding(f"candidate {candidate.id}", False, f"{candidate.model}{known}", str(error))
