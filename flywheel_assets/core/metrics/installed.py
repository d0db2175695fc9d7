"""Installed metrics: those that other packages bring, under the entry-point group `flywheel_assets.metrics`.

What belongs here: finding them, refusing the ones that cannot be used, and which version of each there is. What does not:
calling them (`registry`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint

from flywheel_assets.core.metrics.metric import Metric, MetricError
from flywheel_assets.core.rows import WorkloadType

ENTRY_POINT_GROUP = "flywheel_assets.metrics"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Columns that predictions and leaderboards have beside those of the metrics, and what they add to a metric's name.
RESERVED_NAMES = frozenset({
    "row_id", "trace_id", "suite_turns", "suite_complexity", "suite_domain", "suite_turn_kind", "gold", "reference",
    "prediction", "latency_ms", "prompt_tokens", "completion_tokens", "error", "candidate", "variant", "state", "reason",
    "cached_tokens", "n", "errors", "latency_p50_ms", "latency_p95_ms", "cost_per_1k_usd", "derived_from",
})  # fmt: skip
_RESERVED_ENDINGS = ("_low", "_high", "_n")
# Columns of a judge (`core.judge`).
_RESERVED_BEGINNING = "judge_"


@cache
def entry_points() -> tuple[EntryPoint, ...]:
    """The entry points of the group, by name. Looked up once a process: a package installed meanwhile needs a new one."""
    # Here, because it takes longer than all the rest of this module and most imports never need it.
    from importlib import metadata

    return tuple(sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value)))


def installed_versions() -> dict[str, str]:
    """`{"entry point = target": "package version"}`, none of them loaded: it changes with every metric added or renewed."""
    return {
        f"{point.name} = {point.value}": f"{point.dist.name} {point.dist.version}" if point.dist else ""
        for point in entry_points()
    }


def load_installed(taken: Collection[tuple[str, WorkloadType]]) -> tuple[Metric, ...]:
    """The installed metrics, by entry point. MetricError where one cannot be used or has a name of `taken`."""
    found: list[Metric] = []
    known = set(taken)
    for point in entry_points():
        metric = _load(point)
        for kind in metric.applies_to:
            if (metric.name, WorkloadType(kind)) in known:
                raise MetricError(
                    f"{_who(point)} brings a metric named '{metric.name}', which {kind} workloads have already. "
                    "Give it a name of its own."
                )
            known.add((metric.name, WorkloadType(kind)))
        found.append(metric)
    return tuple(found)


def _load(point: EntryPoint) -> Metric:
    try:
        loaded = point.load()
        metric = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise MetricError(
            f"{_who(point)} cannot be loaded ({type(error).__name__}: {error}). Mend it, or uninstall the package."
        ) from error
    if fault := _fault(metric):
        raise MetricError(f"{_who(point)} is no usable metric: {fault}. Mend it, or uninstall the package.")
    return metric  # type: ignore[no-any-return]  # _fault says that it is one


def _fault(metric: object) -> str | None:
    """What keeps an object from being a metric."""
    if not isinstance(metric, Metric) or not callable(metric.score):
        return "it needs `name`, `applies_to`, `definition` and `score(row, answer)`"
    if type(metric.name) is not str or not _NAME.fullmatch(metric.name):
        return f"its name {metric.name!r} must be lower-case letters, digits and `_`, at most 63, a letter first"
    if metric.name in RESERVED_NAMES or metric.name.endswith(_RESERVED_ENDINGS):
        return f"the name '{metric.name}' is one of a column that every evaluation or leaderboard has"
    if metric.name.startswith(_RESERVED_BEGINNING):
        return f"the name '{metric.name}' begins with {_RESERVED_BEGINNING}, as those of a judge's columns do"
    if type(metric.definition) is not str or not metric.definition.strip():
        return "its `definition` must say in a sentence what it measures"
    known = [kind.value for kind in WorkloadType]
    if isinstance(metric.applies_to, str) or not isinstance(metric.applies_to, Collection) or not metric.applies_to:
        return f"its `applies_to` must be a list of workload types ({', '.join(known)})"
    odd = [kind for kind in metric.applies_to if kind not in known]
    return f"its `applies_to` names {odd[0]!r}; the workload types are {', '.join(known)}" if odd else None


def _who(point: EntryPoint) -> str:
    package = f" of package '{point.dist.name}' {point.dist.version}" if point.dist else ""
    return f"entry point '{point.name}' ({point.value}){package} in group {ENTRY_POINT_GROUP}"
