"""The leaderboard of the report: every arm with its scores placed on an axis, best first, holes last.

What belongs here: which metrics make the headline, the order of the arms, and where a score lies on its axis. How that is
drawn is said in the templates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.gates import Against, GateKind
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.report.examples import gated_metrics
from flywheel_assets.core.rows import Json

_REFERENCE = Against.REFERENCE.value
# Columns with a picture that fit a laptop; the others stand in a table that unfolds.
_HEADLINES = 4
# An axis shorter than this would blow the noise up.
_SHORTEST_AXIS = 0.2


@dataclass(frozen=True, slots=True)
class Line:
    """A vertical line over all arms of one column, `at` percent of the axis: `reference`, `ceiling` or `gate`."""

    kind: str
    label: str
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Column:
    """One headline metric: its axis from `low` to 1 and the lines on it."""

    metric: str
    low: float
    lines: tuple[Line, ...]

    def at(self, value: float) -> float:
        """Where a value lies on the axis, in percent; what lies beyond is held at its end."""
        return round(100.0 * min(1.0, max(0.0, (value - self.low) / (1.0 - self.low))), 2)


@dataclass(frozen=True, slots=True)
class Place:
    """One arm. `scores` holds what was measured of each headline metric, `all_scores` of every metric, by name."""

    label: str
    candidate: str
    variant: str
    derived_from: str | None
    state: str
    reason: str | None
    winner: bool
    scores: tuple[Score | None, ...]
    all_scores: Mapping[str, Score]
    latency_ms: Mapping[str, float | None]
    cost_per_1k_usd: float | None
    rows: int
    errors: int

    @property
    def is_ok(self) -> bool:
        """Whether it was evaluated."""
        return self.state == "ok"


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The reference (by metric), the headline columns, and the arms; `metrics` names every metric that applies to a row."""

    reference: Mapping[str, Score]
    reference_cost_per_1k_usd: float | None
    reference_latency_ms: Mapping[str, float | int | None]
    rows: int
    metrics: tuple[str, ...]
    columns: tuple[Column, ...]
    places: tuple[Place, ...]


def leaderboard_of(comparison: Comparison, decision: Decision | None) -> Leaderboard:
    """The leaderboard, sorted by the workload's main metric."""
    main = MAIN_METRIC[comparison.workload_type]
    wanted = [main, *(gated_metrics(decision) if decision else comparison.reference_scores)]
    headlines = [metric for metric in dict.fromkeys(wanted) if metric in comparison.reference_scores][:_HEADLINES]
    gates = decision.evidence["settings"]["gates"] if decision else ()
    return Leaderboard(
        reference=comparison.reference_scores,
        reference_cost_per_1k_usd=comparison.reference_cost_per_1k_usd,
        # Absent from comparisons made before it was recorded.
        reference_latency_ms={"p50": None, "p95": None, **comparison.reference_latency_ms},
        rows=len(comparison.row_ids),
        metrics=tuple(metric for metric in comparison.reference if metric in comparison.reference_scores),
        columns=tuple(_column(comparison, metric, gates) for metric in headlines),
        places=tuple(_place(arm, headlines, decision) for arm in best_first(comparison)),
    )


def best_first(comparison: Comparison) -> list[Arm]:
    """All arms by their mean on the main metric, highest first; arms without one last, in the order they were given."""
    main = MAIN_METRIC[comparison.workload_type]

    def mean(arm: Arm) -> float:
        score = arm.report.scores.get(main) if arm.report else None
        return -math.inf if score is None else score.value

    return sorted(comparison.arms, key=mean, reverse=True)


def _column(comparison: Comparison, metric: str, gates: Sequence[Json]) -> Column:
    scores = [arm.report.scores[metric] for arm in comparison.evaluated if arm.report and metric in arm.report.scores]
    reference = comparison.reference_scores[metric]
    lines = [("reference", "reference", reference.value)]
    if (ceiling := comparison.ceiling.get(metric)) is not None:
        lines.append(("ceiling", "the teacher, asked once more", ceiling.value))
    for gate in gates:
        if gate["metric"] == metric and gate["suite"] is None and gate.get("against", _REFERENCE) == _REFERENCE:
            lines += _gate_line(gate, reference.value)
    least = min([*(score.low for score in scores), *(value for _, _, value in lines)], default=0.0)
    low = min(1.0 - _SHORTEST_AXIS, math.floor(max(0.0, least) * 10) / 10)
    axis = Column(metric, low, ())
    return Column(metric, low, tuple(Line(kind, label, value, axis.at(value)) for kind, label, value in lines))


def _gate_line(gate: Json, reference: float) -> list[tuple[str, str, float]]:
    if gate["kind"] == GateKind.NON_INFERIOR:
        return [("gate", f"reference less the margin of {gate['limit']:g}", reference - gate["limit"])]
    if gate["kind"] == GateKind.FLOOR:
        return [("gate", "floor", float(gate["limit"]))]
    return []


def _place(arm: Arm, headlines: Sequence[str], decision: Decision | None) -> Place:
    report = arm.report
    scores = report.scores if report else {}
    return Place(
        label=arm.label,
        candidate=arm.candidate,
        variant=arm.variant.value,
        derived_from=arm.derived_from,
        state=arm.state,
        reason=arm.reason,
        winner=decision is not None and (decision.candidate, decision.variant) == (arm.candidate, arm.variant),
        scores=tuple(scores.get(metric) for metric in headlines),
        all_scores=scores,
        latency_ms=report.latency_ms if report else {"p50": None, "p95": None},
        cost_per_1k_usd=report.cost_per_1k_usd if report else None,
        rows=report.n if report else 0,
        errors=report.errors if report else 0,
    )
