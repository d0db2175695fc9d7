"""Plots: the few pictures a person looks for, as PNG bytes.

matplotlib is imported inside the functions: most commands draw nothing and must not wait for it. Figures are made without
pyplot, so drawing is safe in any thread and needs no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.report.heat_map import heat_map_of
from flywheel_assets.core.rows import Json, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
# Colours of a picture: enough for the shades of letters, few enough to be small.
_PALETTE = 64
# Inches. A dialog of Dagster's UI cuts off what is wider, in a window of 1,440 pixels.
_PAGE_WIDTH = 9.8
_PANEL_WIDTH, _ROW_HEIGHT = 4.6, 0.42
_COLOURS = {Variant.BASE: "#8a8f98", Variant.PREFIXED: "#3b7dd8", Variant.CUSTOMIZED: "#1f9d62"}
_HOLE_COLOUR = "#b03a2e"
_HEADLINES = 3
# Labels a heat map shows; the report has them all.
_HEAT_ROWS = 40
# Those of the report: light enough for dark numbers on every one of them.
_HEAT_COLOURS = ("#f2ab84", "#f6efdc", "#8fd3b2")
# Categories a drift panel has room for.
_MOVED = 10


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One score at one time; points of one `label` are joined."""

    when: datetime
    label: str
    value: float
    low: float
    high: float


def leaderboard_png(comparison: Comparison, metrics: Sequence[str] = ()) -> bytes:
    """Every arm with its 95% intervals, one panel a metric; holes are named in their place.

    `metrics` defaults to the first three that apply to any row.
    """
    shown = (
        list(metrics) or [metric for metric in comparison.reference if metric in comparison.reference_scores][:_HEADLINES]
    )
    height = 1.3 + _ROW_HEIGHT * max(2, len(comparison.arms))
    figure = _figure(min(_PAGE_WIDTH, _PANEL_WIDTH * max(1, len(shown)) + 1.6), height)
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, shown, strict=False):
        reference = comparison.reference_scores.get(metric)
        if reference:
            panel.axvline(reference.value, color="#444444", linestyle=":", linewidth=1)
        for place, arm in enumerate(comparison.arms):
            score = arm.report.scores.get(metric) if arm.report else None
            if score is None:
                panel.text(
                    0.02, place, arm.state if not arm.is_ok else "no rows", color=_HOLE_COLOUR, va="center", fontsize=8
                )
                continue
            panel.errorbar(
                score.value, place, xerr=_reach(score), fmt="o", color=_COLOURS[arm.variant], capsize=3, markersize=6
            )
        panel.set_title(metric, fontsize=10)
        panel.set_xlim(-0.03, 1.03)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(comparison.arms)), [arm.label for arm in comparison.arms], fontsize=8)
    panels[0].set_ylim(len(comparison.arms) - 0.5, -0.5)
    figure.suptitle(f"{comparison.workload}: 95% intervals, dotted line = reference", fontsize=10)
    return _png(figure)


def suites_png(comparison: Comparison) -> bytes:
    """The main metric of every evaluated arm by suite label, the labels with the most rows first."""
    from matplotlib.colors import LinearSegmentedColormap

    heat = heat_map_of(comparison)
    lines = [(f"{row.label} ({row.rows})", row) for group in heat.groups for row in group.shown]
    shown, left_out = lines[:_HEAT_ROWS], len(lines) - _HEAT_ROWS
    figure = _figure(3.2 + 1.05 * max(2, len(heat.arms)), 1.6 + _ROW_HEIGHT * max(2, len(shown)))
    axes = figure.subplots()
    values = [[math.nan if cell is None else cell.score.value for cell in row.cells] for _, row in shown]
    if values:
        axes.imshow(
            values, aspect="auto", cmap=LinearSegmentedColormap.from_list("heat", _HEAT_COLOURS), vmin=heat.low, vmax=1.0
        )
    for place, (_, row) in enumerate(shown):
        for column, cell in enumerate(row.cells):
            axes.text(column, place, f"{cell.score.value:.3f}" if cell else "–", ha="center", va="center", fontsize=8)
    names = [_plain(label, 28) for label in heat.arms]
    axes.set_xticks(range(len(names)), [name.replace(" (", "\n(") for name in names], fontsize=8, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(shown)), [_plain(label, 40) for label, _ in shown], fontsize=8, parse_math=False)
    more = f"; {left_out} more labels in report.html" if left_out > 0 else ""
    axes.set_title(f"{heat.metric} by label (rows){more}", fontsize=10)
    return _png(figure)


def loss_curve_png(training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]] = ()) -> bytes:
    """Loss over optimizer steps, (step, loss) each; validation losses are drawn beside them where there are any."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    for points, label, style in ((training, "training", "-"), (validation, "validation", "o--")):
        if points:
            axes.plot([step for step, _ in points], [loss for _, loss in points], style, label=label, linewidth=1.5)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if training or validation:
        axes.legend(fontsize=8)
    return _png(figure)


def score_history_png(points: Sequence[HistoryPoint], title: str = "score over time") -> bytes:
    """Scores over time with their intervals, one line a label."""
    figure = _figure(7.2, 3.8)
    axes = figure.subplots()
    for label in dict.fromkeys(point.label for point in points):
        line = sorted((point for point in points if point.label == label), key=lambda point: point.when)
        values = [point.value for point in line]
        reach = [[p.value - p.low for p in line], [p.high - p.value for p in line]]
        axes.errorbar([_day(point.when) for point in line], values, yerr=reach, fmt="o-", capsize=3, label=label)
    axes.xaxis_date()
    axes.set_ylim(-0.03, 1.03)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if points:
        axes.legend(fontsize=8)
    figure.autofmt_xdate()
    return _png(figure)


def drift_png(shifts: Mapping[str, Json]) -> bytes:
    """Shares then and now, one panel a distribution (`core.drift.Shift` as JSON), the most moved categories first."""
    figure = _figure(min(_PAGE_WIDTH, _PANEL_WIDTH * len(shifts) + 0.6), 3.2)
    panels = figure.subplots(1, len(shifts), squeeze=False)[0]
    for panel, (name, shift) in zip(panels, shifts.items(), strict=True):
        then, now = shift["then"], shift["now"]
        shown = sorted(then, key=lambda category: -abs(now[category] - then[category]))[:_MOVED]
        places = range(len(shown))
        panel.barh([place - 0.2 for place in places], [then[c] for c in shown], 0.38, color="#8a8f98", label="then")
        panel.barh([place + 0.2 for place in places], [now[c] for c in shown], 0.38, color="#3b7dd8", label="since")
        panel.set_yticks(list(places), shown, fontsize=8)
        panel.invert_yaxis()
        panel.set_xlim(0, 1)
        colour = _HOLE_COLOUR if shift["psi"] > shift["threshold"] else "black"
        panel.set_title(f"{name}: PSI {shift['psi']:.2f} (threshold {shift['threshold']:.2f})", fontsize=9, color=colour)
    panels[0].legend(fontsize=8, frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # With a palette a picture takes a quarter of the bytes, of which Dagster's event log keeps three copies.
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    drawn = Image.fromarray(pixels).convert("RGB").quantize(_PALETTE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    drawn.save(out, format="png", optimize=True)
    return out.getvalue()


def _plain(text: str, longest: int) -> str:
    """One short line that a font can show: a label comes from a record, and may be anything."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _day(when: datetime) -> float:
    """Days since 1970, which is what matplotlib's date axis counts in."""
    return when.timestamp() / 86400


def _reach(score: Score) -> list[list[float]]:
    return [[max(0.0, score.value - score.low)], [max(0.0, score.high - score.value)]]
