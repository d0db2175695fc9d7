"""Story: what is told of one phase: its trace with the parts of the work, and its scores. No content of any row is in it.

Numbers of the artifacts' summaries are told, and the few words that name a result; other text is not, because nobody can say
what stands in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from flywheel_assets.core import graph
from flywheel_assets.core.catalog import CATALOG_FILE, act_in
from flywheel_assets.core.promotion import TEACHER
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.sources.langfuse_api import OWN_ENVIRONMENT
from flywheel_assets.resources.telemetry.langfuse.identity import digest, seed_of, trace_id_of
from flywheel_assets.resources.telemetry.langfuse.observations import Observation, Trace, without_credentials
from flywheel_assets.resources.telemetry.langfuse.scores import Score
from flywheel_assets.resources.telemetry.phases import Ended, Phase, PhaseKind, PhaseStatus, Reading

# Points of a curve that are shown: enough to see its shape.
CURVE_POINTS = 100
_RESULT_WORDS = ("type", "verdict", "candidate", "variant", "mode", "judge", "name")
_TABLES = (
    *("scores", "aggregates", "latency_ms", "tokens", "rows", "seconds", "validation"),
    *("quality", "rejected", "scrubbed", "left_out", "eval_gold", "eval_condemned"),
)
_EXAMINED = (PhaseKind.EVALUATION, PhaseKind.JUDGE)
# Our own messages end so where they show what a model or a judge wrote.
_EXAMPLE = re.compile(r"; the first\b.*", re.DOTALL)
_LONG_QUOTE = re.compile(r"(['\"`])[^'\"`]{60,}\1")
_KILLED = "KILLED: the run was ended before the work was done"


def trace_of(phase: Phase) -> Trace:
    """The trace of a phase: grouped by flywheel run, found by workload, candidate and kind, with the way back to Dagster."""
    workload, candidate = phase.partition.workload, phase.partition.candidate
    tags = [f"kind:{phase.kind}"]
    tags += [f"workload:{workload}"] if workload else []
    tags += [f"candidate:{candidate}"] if candidate else []
    metadata: Json = {
        "run_url": without_credentials(phase.run_url),
        "dagster_run": phase.dagster_run,
        "flywheel_run": phase.flywheel_run,
        "kind": str(phase.kind),
        "asset": phase.assets[0],
        "workload": workload or None,
        "candidate": candidate or None,
    }
    if phase.kind is PhaseKind.JUDGE:
        outer = f"{phase.dagster_run}/{phase.assets[0]}/{phase.assets[0]}"
        metadata["evaluation_trace"] = trace_id_of(outer)
    return Trace(
        id=trace_id_of(seed_of(phase)),
        name=phase.name,
        environment=OWN_ENVIRONMENT,
        session=phase.flywheel_run,
        tags=tuple(tags),
        metadata=metadata,
    )


def root_of(trace: Trace) -> str:
    """The id of a trace's root observation."""
    return digest(f"{trace.id}/root")


def event_of(trace: Trace, name: str, at: float, output: Json) -> Observation:
    """Something that happened within a phase."""
    identity = digest(f"{trace.id}/event/{name}")
    return Observation(trace, identity, name, at, at, parent=root_of(trace), kind="event", output=output)


def begun(phase: Phase) -> Observation:
    """What makes a phase visible while it is under way: an event below the root, which comes at its end."""
    trace = trace_of(phase)
    return event_of(trace, "begun", phase.started, {"made_from": _made_from(phase)})


def ended(
    phase: Phase, end: Ended, curve: Sequence[Reading] = (), metadata: Mapping[str, Any] | None = None, *, content: bool
) -> Iterator[Observation]:
    """The root, its parts and what was decided. `content` lets the error's own words out, `metadata` is added to ours."""
    trace = trace_of(phase)
    output = _result(phase, end) | ({"curve": _curve(curve)} if curve else {})
    artifacts = {a.asset: {"version": a.version, "data_version": a.data_version, "state": a.state} for a in end.artifacts}
    yield Observation(
        trace=trace,
        id=root_of(trace),
        name=phase.name,
        started=phase.started,
        ended=end.at,
        kind="evaluator" if phase.kind in _EXAMINED else "span",
        level=_level(end.status),
        message=_message(end, content=content),
        output={"status": str(end.status), **output},
        metadata={"made_from": _made_from(phase), "artifacts": artifacts, **(metadata or {})},
    )
    for number, span in enumerate(end.spans):
        identity = digest(f"{trace.id}/{span.name}/{number}")
        yield Observation(trace, identity, span.name, span.started, span.ended, parent=root_of(trace))
    for decision in _of(end.artifacts, graph.DECISION):
        wanted = ("verdict", "candidate", "variant", "needed_rows", "reasons")
        said = {name: decision.summary.get(name) for name in wanted}
        yield event_of(trace, f"decision: {said['verdict']}", end.at, said)
    for catalog in _of(end.artifacts, graph.CATALOG):
        yield from _changes(trace, catalog, end.at)


def _changes(trace: Trace, catalog: Artifact, at: float) -> Iterator[Observation]:
    """What became of the models that serve: what a person did, without his name and words, or what a decision changed."""
    history = orjson.loads((catalog.path / CATALOG_FILE).read_bytes())["history"]
    for change in history[len(history) - catalog.summary.get("new_changes", 0) :]:
        act, serving = act_in(change), change["to"].get("serving")
        happened = "decided" if act is None else act["action"]
        now = None if serving is None else {key: serving[key] for key in ("candidate", "variant", "adapter_version")}
        about = {"workload": change["workload"], "change": change["change"], "decision": change["to"]["evidence"]}
        yield event_of(trace, f"{happened}: {change['workload']}", at, {**about, "serves_now": now or TEACHER})


def killed(phase: Phase, at: float) -> Observation:
    """The end of a phase whose process is gone."""
    return next(iter(ended(phase, Ended(PhaseStatus.KILLED, at), content=False)))


def scores_of(phase: Phase, end: Ended) -> list[Score]:
    """The scores of a phase's trace: metrics with their intervals, losses, the verdict."""
    trace = trace_of(phase)

    def score(name: str, value: float | str, **more: Any) -> Score:
        return Score(name, value, end.at, OWN_ENVIRONMENT, trace=trace.id, **more)

    found = [score(name, value, **_interval(more)) for name, value, more in measured(phase, end)]
    for adapter in _of(end.artifacts, graph.ADAPTER):
        losses = {
            "training_loss": (adapter.summary.get("loss_curve") or [{}])[-1].get("loss"),
            "validation_loss": (adapter.summary.get("validation") or {}).get("loss_after"),
        }
        found += [score(name, float(loss)) for name, loss in losses.items() if _is_number(loss)]
    found += [score("verdict", str(a.summary["verdict"])) for a in _of(end.artifacts, graph.DECISION)]
    return found


def measured(phase: Phase, end: Ended) -> Iterator[tuple[str, float, Json]]:
    """Name, value and the rest (`low`, `high`, `n`) of everything an evaluation or a judge measured."""
    if phase.kind not in (*_EXAMINED, PhaseKind.CONTEXT):
        return
    groups: list[Json] = [end.facts]
    for artifact in end.artifacts:
        groups += [artifact.summary.get("scores") or {}, artifact.summary.get("aggregates") or {}]
    for group in groups:
        for name, found in group.items():
            if isinstance(found, dict) and _is_number(found.get("value")):
                yield name, float(found["value"]), {k: found.get(k) for k in ("low", "high", "n")}


def _of(artifacts: Iterable[Artifact], asset: str) -> Iterator[Artifact]:
    """The artifact of an asset, where it has a result to tell."""
    return (artifact for artifact in artifacts if artifact.asset == asset and artifact.state == "ok")


def _made_from(phase: Phase) -> Json:
    return {source: version for versions in phase.inputs.values() for source, version in versions.items()}


def _level(status: PhaseStatus) -> str | None:
    return {PhaseStatus.FAILED: "ERROR", PhaseStatus.KILLED: "WARNING"}.get(status)


def _message(end: Ended, *, content: bool) -> str | None:
    if end.status is PhaseStatus.KILLED:
        return _KILLED
    if end.error is None:
        return None
    error = without_credentials(end.error)
    if content:
        return error
    return _LONG_QUOTE.sub(r"\1...\1", _EXAMPLE.sub("; see the run", error))


def _interval(found: Json) -> Json:
    low, high = found.get("low"), found.get("high")
    if not (_is_number(low) and _is_number(high)):
        return {"metadata": {"n": found["n"]} if _is_number(found.get("n")) else {}}
    comment = f"95% interval {low:.3f} to {high:.3f}" + (f", {found['n']} rows" if _is_number(found.get("n")) else "")
    return {"comment": comment, "metadata": found}


def _result(phase: Phase, end: Ended) -> Json:
    results = {artifact.asset: numbers_of(artifact.summary) | _checks(artifact) for artifact in end.artifacts}
    if phase.kind is PhaseKind.JUDGE:
        results["judge"] = numbers_of(end.facts)
    return results


def _checks(artifact: Artifact) -> Json:
    checks = artifact.summary.get("checks") or ()
    return {"checks": {check["name"]: bool(check["passed"]) for check in checks}} if checks else {}


def numbers_of(summary: Mapping[str, Any]) -> Json:
    """The numbers of a summary, and the words that name its result.

    Of the tables in it only those whose keys are ours: others count by names out of the traffic, such as tools.
    """
    found: Json = {}
    for name, value in summary.items():
        if isinstance(value, bool) or _is_number(value):
            found[name] = value
        elif isinstance(value, str) and name in _RESULT_WORDS:
            found[name] = without_credentials(value)
        elif isinstance(value, Mapping) and (name in _TABLES or "value" in value) and (inner := numbers_of(value)):
            found[name] = inner
    return found


def _curve(readings: Sequence[Reading]) -> list[Json]:
    every = -(-len(readings) // CURVE_POINTS)
    chosen = [*readings[:-1:every], readings[-1]]
    return [{"step": one.step, **{k: v for k, v in one.values.items() if _is_number(v)}} for one in chosen]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
