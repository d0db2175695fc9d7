"""Facts: what of a phase becomes parameters, metrics and tags of its MLflow run. Plain data; nothing of any row.

Names of tags that both systems know are those of the Dagster run (`flywheel/run`, `flywheel/workload`, ...);
`dagster_run_id` is the one that dagster-mlflow sets, so that a search finds the runs of both.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from flywheel_assets.core.graph import ADAPTER, DECISION, EVALS
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import MANIFEST, Artifact
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.telemetry.phases import Ended, Phase

DAGSTER_RUN = "dagster_run_id"
FLYWHEEL_RUN = "flywheel/run"
PHASE = "flywheel/phase"
STARTED = "flywheel/started"
CELL = "flywheel/cell"
# What servers since MLflow 1 take; today's take 6,000 and 8,000.
VALUE_CHARS = 500
TAG_CHARS = 5000
PARAMS = 200
METRICS = 300
# Of an artifact's summary these hold small numbers; anything else may be as large as the traffic, or speak of it.
_NUMBERS_IN = ("latency_ms", "tokens", "validation", "rows", "seconds")
_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True, slots=True)
class Point:
    """A number at an optimizer step; `at` in epoch seconds."""

    step: int
    name: str
    value: float
    at: float


def params_of(phase: Phase) -> dict[str, str]:
    """The settings that the phase reads, flat: `training.epochs`; behind the asset's name where it makes several."""
    several = len(phase.settings) > 1
    found = chain.from_iterable(_flat(asset if several else "", content) for asset, content in phase.settings.items())
    named = {_name(name): _short(value) for name, value in found if name}
    return dict(list(named.items())[:PARAMS])


def tags_of(phase: Phase) -> dict[str, str]:
    """What the run is about, whose it is, and the data versions that it is made from."""
    inputs = {
        f"flywheel/input/{source.replace('@', ':')}": version
        for versions in phase.inputs.values()
        for source, version in versions.items()
    }
    tags = {
        DAGSTER_RUN: phase.dagster_run,
        FLYWHEEL_RUN: phase.flywheel_run,
        PHASE: phase.name,
        STARTED: repr(phase.started),
        "flywheel/kind": phase.kind.value,
        "flywheel/workload": phase.partition.workload,
        "flywheel/candidate": phase.partition.candidate,
        "flywheel/dagster_url": phase.run_url,
        **inputs,
    }
    return {_name(name): _short(value, TAG_CHARS) for name, value in tags.items() if value}


def metrics_of(ended: Ended) -> dict[str, float]:
    """The numbers that came of the phase: scores with their intervals, counts, latency, cost."""
    found: dict[str, float] = {}
    for artifact in ended.artifacts:
        before = f"{artifact.asset}/" if len(ended.artifacts) > 1 else ""
        found |= {before + name: value for name, value in _metrics(artifact.summary)}
    found |= dict(_leaves(ended.facts))
    named = {_name(name): value for name, value in found.items() if math.isfinite(value)}
    return dict(list(named.items())[:METRICS])


def scores_by_variant(ended: Ended) -> dict[str, float]:
    """`customized/f1` and the like: what the run of the whole cell shows of its evaluations."""
    variants = {asset: variant for variant, asset in EVALS.items()}
    return {
        _name(f"{variants[artifact.asset]}/{metric}"): score["value"]
        for artifact in ended.artifacts
        if artifact.asset in variants
        for metric, score in artifact.summary.get("scores", {}).items()
        if _is_number(score.get("value"))
    }


def curve_of(phase: Phase, ended: Ended) -> list[Point]:
    """The loss after every logged optimizer step; the times between begin and end are not known, and shared out evenly."""
    points = [
        # The trainer reports every number of a step as a float; MLflow takes a whole number as step, and nothing else.
        (int(point["step"]), name, float(value))
        for artifact in ended.artifacts
        if artifact.asset == ADAPTER
        for point in artifact.summary.get("loss_curve", ())
        for name, value in point.items()
        if name != "step" and _is_number(value)
    ]
    last = max((step for step, _, _ in points), default=0)
    took = ended.at - phase.started
    return [Point(step, _name(name), value, phase.started + took * step / max(last, 1)) for step, name, value in points]


def outcome_tags(ended: Ended) -> dict[str, str]:
    """Where what was made lies, which version it is, and what tells it from any other; the verdict of a decision."""
    tags: dict[str, str] = {}
    for artifact in ended.artifacts:
        tags |= {
            f"flywheel/artifact/{artifact.asset}": str(artifact.path),
            f"flywheel/version/{artifact.asset}": artifact.version,
            f"flywheel/data_version/{artifact.asset}": artifact.data_version,
            f"flywheel/sha256/{artifact.asset}": sha256_of(artifact),
            f"flywheel/state/{artifact.asset}": artifact.state,
        }
        if artifact.asset == DECISION:
            summary = artifact.summary
            won = f"{summary['candidate']} ({summary['variant']})" if summary["candidate"] else "nobody"
            tags |= {"flywheel/verdict": str(summary["verdict"]), "flywheel/winner": won}
    tags |= {f"flywheel/fact/{name}": value for name, value in ended.facts.items() if isinstance(value, str)}
    if ended.error:
        tags["flywheel/error"] = without_credentials(ended.error)
    return {_name(name): _short(value, TAG_CHARS) for name, value in tags.items()}


def description_of(phase: Phase, ended: Ended | None = None) -> str:
    """What a person reads on the run's page: the way back to Dagster, and where what was made lies."""
    about = f"`{phase.name}` of {phase.partition}, made by [this Dagster run]({phase.run_url}) of the flywheel."
    if ended is None:
        return about
    made = [f"- `{one.asset}`: {one.state}, version `{one.version}` in `{one.path}`" for one in ended.artifacts]
    badly = [f"It ended badly: {_short(ended.error)}"] if ended.error else []
    return "\n\n".join([about, *(["\n".join(made)] if made else []), *badly])


def sha256_of(artifact: Artifact) -> str:
    """Of its manifest, which holds the sha256 of each of its files: what `sha256sum manifest.json` says."""
    return hashlib.sha256((artifact.path / MANIFEST).read_bytes()).hexdigest()


def _metrics(summary: Json) -> Iterator[tuple[str, float]]:
    for name, value in summary.items():
        if _is_number(value):
            yield name, float(value)
    for metric, score in {**summary.get("scores", {}), **summary.get("aggregates", {})}.items():
        for key, value in score.items() if isinstance(score, Mapping) else ():
            if _is_number(value):
                yield metric if key == "value" else f"{metric}_{key}", float(value)
    for name in _NUMBERS_IN:
        yield from ((f"{name}_{key}", value) for key, value in _leaves(summary.get(name)))


def _leaves(content: Any) -> Iterator[tuple[str, float]]:
    """The numbers of a mapping, and of the mappings in it."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if _is_number(value):
            yield key, float(value)
        elif isinstance(value, Mapping):
            yield from ((key if inner == "value" else f"{key}_{inner}", number) for inner, number in _leaves(value))


def _flat(before: str, content: Any) -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(f"{before}.{key}" if before else str(key), value)
    else:
        yield before, content if isinstance(content, str) else orjson.dumps(content, default=str).decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return _NOT_IN_A_NAME.sub("_", name)[:250]


def _short(value: str, chars: int = VALUE_CHARS) -> str:
    shown = without_credentials(str(value))
    return shown if len(shown) <= chars else f"{shown[: chars - 4]} ..."
