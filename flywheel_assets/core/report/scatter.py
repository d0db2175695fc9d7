"""Scatter: what quality costs, in money or in time, as geometry that a template draws.

What belongs here: axes, places in user units of the picture, and labels that do not cover each other. What does not: colours
and markup (`scatter.svg.jinja`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.gates import COST, LATENCY
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.report.amounts import milliseconds, usd
from flywheel_assets.core.report.leaderboard import best_first

WIDTH, HEIGHT = 520.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 14.0, 14.0, 44.0
# Costs that lie further apart than this are told apart on a logarithmic axis only.
_LOG_FROM = 12.0
# About what one character takes at the size labels are set in, and what a line takes.
_CHAR, _LINE = 6.0, 13.0
_LONGEST_LABEL = 26
# Labels of more points than this would cover each other wherever they stand.
_LABELLED = 24


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, `at` in units of the picture."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the picture, `at` in its units."""

    kind: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One arm: its place, the ends of its whiskers, and its label; all in units of the picture, `x_to` None without one."""

    kind: str
    x: float
    y: float
    y_low: float
    y_high: float
    x_to: float | None
    says: str
    label: str
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Scatter:
    """One picture. `unknown` names the arms of which the figure is not known; without any dot there is nothing to draw."""

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    rules: tuple[Rule, ...]
    upright: tuple[Rule, ...]
    dots: tuple[Dot, ...]
    unknown: tuple[str, ...]
    logarithmic: bool

    @property
    def says(self) -> str:
        """The picture in words, for whoever cannot see it."""
        return f"{self.title}. " + " ".join(f"{dot.says}." for dot in self.dots)


@dataclass(frozen=True, slots=True)
class _Point:
    kind: str
    label: str
    x: float
    x_to: float | None
    score: Score
    measured: bool = True


def cost_against_quality(comparison: Comparison, decision: Decision | None = None) -> Scatter:
    """USD for 1,000 requests against the main metric; the teacher stands there where its cost is known."""
    metric = MAIN_METRIC[comparison.workload_type]
    points, unknown = [], []
    for label, kind, score, cost, _ in _arms(comparison, metric):
        if cost is None:
            unknown.append(label)
        else:
            points.append(_Point(kind, label, cost, None, score))
    reference = comparison.reference_scores.get(metric)
    if comparison.reference_cost_per_1k_usd is not None and reference is not None:
        points.append(_Point("reference", "the teacher", comparison.reference_cost_per_1k_usd, None, reference, False))
    else:
        unknown.append("the teacher")
    budget = _budget(decision, COST)
    return _drawn("Cost against quality", "USD for 1,000 requests", metric, points, unknown, reference, budget, usd)


def latency_against_quality(comparison: Comparison, decision: Decision | None = None) -> Scatter:
    """Milliseconds an answer took, the median with a whisker up to the 95th percentile, against the main metric; the teacher
    stands there where its latency was logged."""
    metric = MAIN_METRIC[comparison.workload_type]
    points, unknown = [], []
    for label, kind, score, _, latency in _arms(comparison, metric):
        if latency["p50"] is None:
            unknown.append(label)
        else:
            points.append(_Point(kind, label, latency["p50"], latency["p95"], score))
    title = "milliseconds an answer took: the median, and to the right the 95th percentile"
    reference, budget = comparison.reference_scores.get(metric), _budget(decision, LATENCY)
    logged = comparison.reference_latency_ms
    if (p50 := logged.get("p50")) is not None and reference is not None:
        points.append(_Point("reference", "the teacher, as logged", p50, logged.get("p95"), reference, False))
    return _drawn("Latency against quality", title, metric, points, unknown, reference, budget, milliseconds)


def _arms(comparison: Comparison, metric: str) -> list[tuple[str, str, Score, float | None, dict[str, float | None]]]:
    return [
        (arm.label, arm.variant.value, arm.report.scores[metric], arm.report.cost_per_1k_usd, arm.report.latency_ms)
        for arm in best_first(comparison)
        if arm.report is not None and metric in arm.report.scores
    ]


def _budget(decision: Decision | None, metric: str) -> float | None:
    gates = decision.evidence["settings"]["gates"] if decision else ()
    return next((float(gate["limit"]) for gate in gates if gate["metric"] == metric), None)


def _drawn(
    title: str,
    x_title: str,
    metric: str,
    points: Sequence[_Point],
    unknown: Sequence[str],
    reference: Score | None,
    budget: float | None,
    says: Callable[[float], str],
) -> Scatter:
    if not any(point.measured for point in points):
        return Scatter(title, x_title, metric, (), (), (), (), (), tuple(unknown), False)
    xs = [x for point in points for x in (point.x, point.x_to) if x is not None]
    xs += [] if budget is None else [budget]
    across = _Axis.over(xs, _LEFT, WIDTH - _RIGHT)
    bottom = min(0.9, math.floor(10 * min(point.score.low for point in points if point.measured)) / 10)
    up = _Axis(bottom, 1.02, HEIGHT - _BOTTOM, _TOP, False)
    dots = [_dot(point, across, up, metric, says) for point in points]
    rules = [] if reference is None else [Rule("reference", up.at(reference.value), "reference")]
    return Scatter(
        title=title,
        x_title=x_title,
        y_title=metric,
        x_ticks=tuple(Tick(across.at(value), f"{value:,.4g}") for value in across.ticks()),
        y_ticks=tuple(Tick(up.at(value), f"{value:.2g}") for value in up.ticks()),
        rules=tuple(rules),
        upright=() if budget is None else (Rule("gate", across.at(budget), "budget"),),
        dots=tuple(_labelled(dots)),
        unknown=tuple(unknown),
        logarithmic=across.logarithmic,
    )


def _dot(point: _Point, across: _Axis, up: _Axis, metric: str, says: Callable[[float], str]) -> Dot:
    score = point.score
    figure = says(point.x) + ("" if point.x_to is None else f" (95th percentile {says(point.x_to)})")
    interval = f", 95% interval {score.low:.3f} to {score.high:.3f}" if point.measured else ""
    short = point.label if len(point.label) <= _LONGEST_LABEL else point.label[: _LONGEST_LABEL - 1] + "…"
    return Dot(
        kind=point.kind,
        x=across.at(point.x),
        y=up.at(score.value),
        y_low=up.at(score.low) if point.measured else up.at(score.value),
        y_high=up.at(score.high) if point.measured else up.at(score.value),
        x_to=None if point.x_to is None else across.at(point.x_to),
        says=f"{point.label}: {figure}, {metric} {score.value:.3f}{interval}",
        label=short,
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values `low` to `high` on the units `start` to `end` of the picture."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """An axis that holds all of these values (0 or more), from 0 where they lie close together."""
        least, most = min(values), max(values)
        if least > 0 and most / least > _LOG_FROM:
            return cls(least / 1.5, most * 1.5, start, end, True)
        return cls(0.0, most * 1.08 or 1.0, start, end, False)

    def at(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        place = math.log(value) if self.logarithmic else value
        share = min(1.0, max(0.0, (place - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
            return [tick for decade in decades for step in steps if self.low <= (tick := step * 10.0**decade) <= self.high]
        rough = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(rough))
        step = size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _labelled(dots: Sequence[Dot]) -> list[Dot]:
    """The dots with their labels where each covers least: beside, above or below its dot."""
    taken = [(dot.x - 6, dot.y - 6, dot.x + 6, dot.y + 6) for dot in dots]
    # Whiskers are thin: a label may cross one rather than stand beside another's dot.
    taken += [(dot.x - 1, dot.y_high, dot.x + 1, dot.y_low) for dot in dots]
    taken += [(dot.x, dot.y - 1, dot.x_to, dot.y + 1) for dot in dots if dot.x_to is not None]
    placed = []
    for dot in dots:
        if len(dots) > _LABELLED and dot.kind != "reference":
            placed.append(replace(dot, label=""))
            continue
        width = _CHAR * len(dot.label)
        options = [
            (dot.x + 9, dot.y - 5, "start"),
            (dot.x - 9, dot.y - 5, "end"),
            (dot.x + 9, dot.y + 14, "start"),
            (dot.x - 9, dot.y + 14, "end"),
            (dot.x + 9, dot.y - 20, "start"),
            (dot.x - 9, dot.y - 20, "end"),
            (dot.x + 9, dot.y + 28, "start"),
            (dot.x - 9, dot.y + 28, "end"),
        ]
        x, y, anchor = min(options, key=lambda option: _covered(_box(option, width), taken) + _astray(dot, option, dots))
        taken.append(_box((x, y, anchor), width))
        placed.append(replace(dot, label_x=round(x, 1), label_y=round(y, 1), anchor=anchor))
    return placed


def _box(option: tuple[float, float, str], width: float) -> tuple[float, float, float, float]:
    x, y, anchor = option
    left = x if anchor == "start" else x - width
    return left, y - _LINE + 2, left + width, y + 3


def _astray(dot: Dot, option: tuple[float, float, str], dots: Sequence[Dot]) -> float:
    """A penalty for a label that begins nearer to another's dot than to its own."""
    x, y, _ = option
    own = math.hypot(dot.x - x, dot.y - y + 4)
    nearest = min((math.hypot(other.x - x, other.y - y + 4) for other in dots if other is not dot), default=math.inf)
    return own + (250.0 if nearest <= own else 0.0)


def _covered(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> float:
    """Square units of the box that other things stand on, or that lie outside of the picture."""
    left, top, right, bottom = box
    hidden = sum(
        max(0.0, min(right, other[2]) - max(left, other[0])) * max(0.0, min(bottom, other[3]) - max(top, other[1]))
        for other in taken
    )
    outside = max(0.0, _LEFT - left) + max(0.0, right - WIDTH) + max(0.0, _TOP - top) + max(0.0, bottom - HEIGHT + _BOTTOM)
    return hidden + 20 * outside
