"""The heat map of the report: the main metric of every arm by suite label, which a mean over all rows hides.

What belongs here: the cells, their order and their shade. How they are coloured is said in the templates (HTML) and in
`core.plots` (PNG).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import MIN_DOMAIN_ROWS, REPORTED_SUITES, Score, SuiteReport
from flywheel_assets.core.report.leaderboard import best_first

SHADES = 10
# Labels of one suite that are shown at once; the others unfold.
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One arm on the rows of one label: the score, its shade (0 worst to `SHADES` best), and whether it is of few rows."""

    score: Score
    shade: int
    few: bool


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One label, the number of its rows that the metric applies to, and its cells in the order of the arms."""

    label: str
    rows: int
    cells: tuple[HeatCell | None, ...]


@dataclass(frozen=True, slots=True)
class HeatGroup:
    """One suite: the labels with the most rows, and the rest."""

    suite: str
    shown: tuple[HeatRow, ...]
    folded: tuple[HeatRow, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`low` and 1 are the scores of the worst and the best shade; of fewer rows than `few` a cell says little."""

    metric: str
    low: float
    arms: tuple[str, ...]
    groups: tuple[HeatGroup, ...]
    few: int = MIN_DOMAIN_ROWS


def heat_map_of(comparison: Comparison) -> HeatMap:
    """All evaluated arms, in the order of the leaderboard, on the workload's main metric."""
    metric = MAIN_METRIC[comparison.workload_type]
    arms = [(arm.label, arm.report) for arm in best_first(comparison) if arm.report is not None]
    found = {
        suite: {
            label: [_score(report.suites.get(suite, {}).get(label), metric) for _, report in arms]
            for label in sorted({label for _, report in arms for label in report.suites.get(suite, {})})
        }
        for suite in REPORTED_SUITES
    }
    values = [score.value for labels in found.values() for scores in labels.values() for score in scores if score]
    low = min(0.9, math.floor(min(values, default=0.0) * 10) / 10)
    groups = [_group(suite, labels, low) for suite, labels in found.items()]
    return HeatMap(metric, low, tuple(label for label, _ in arms), tuple(group for group in groups if group.shown))


def _group(suite: str, labels: dict[str, list[Score | None]], low: float) -> HeatGroup:
    rows = [
        HeatRow(label, max(score.n for score in scores if score), tuple(_cell(score, low) for score in scores))
        for label, scores in labels.items()
        # A label all of whose rows the metric does not apply to has nothing to show.
        if any(scores)
    ]
    rows.sort(key=lambda row: (-row.rows, row.label))
    return HeatGroup(suite, tuple(rows[:_SHOWN]), tuple(rows[_SHOWN:]))


def _cell(score: Score | None, low: float) -> HeatCell | None:
    if score is None:
        return None
    share = max(0.0, (score.value - low) / (1.0 - low))
    return HeatCell(score, round(SHADES * share), score.n < MIN_DOMAIN_ROWS)


def _score(report: SuiteReport | None, metric: str) -> Score | None:
    return report.scores.get(metric) if report else None
