"""The models: candidates and judges, whether they are there and answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from flywheel_assets.core.judge.calibration import MIN_LABELS
from flywheel_assets.resources.doctor.finding import Finding
from flywheel_assets.resources.judge.choice import JudgeError, read_labels
from flywheel_assets.resources.model_identity import model_path
from flywheel_assets.resources.serving import RemoteModel, Serving, ServingError, remote_endpoint
from flywheel_assets.settings import Candidate, JudgeSettings, Settings


def candidates(settings: Settings) -> Iterator[Finding]:
    """Every candidate but NIMs, which are looked at with their cluster."""
    for candidate in settings.candidates:
        if candidate.nim is None:
            yield _candidate(settings, candidate)


def _candidate(settings: Settings, candidate: Candidate) -> Finding:
    return _endpoint(candidate) if candidate.is_remote else _weights(settings, candidate)


def judges(settings: Settings) -> Iterator[Finding]:
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
