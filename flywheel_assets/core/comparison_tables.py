"""Comparison tables: what a spreadsheet is opened for, beside the leaderboard.

What belongs here: the CSV files of the comparison artifact, one figure a line, so that they can be filtered and pivoted
whatever metrics there are. What does not: the leaderboard itself (`core.comparison`) and tests of their own
(`core.statistics`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from flywheel_assets.core.clusters import RESAMPLES
from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.gates import gates_of_type
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.core.statistics import paired_test

Cell = str | int | float | None

# Bounds of metrics that no default gate looks at are for reading: a fifth of the draws leaves the second digit alone.
_FEWER_RESAMPLES = RESAMPLES // 5
# Each bound, by itself, holds with 95% confidence.
_ALPHA = 0.05
# A text that begins like this is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def tables_of(comparison: Comparison) -> dict[str, str]:
    """The tables by file name, as CSV with a header.

    `single_turn.csv`: every metric on single-turn and on multi-turn rows. `against_teacher.csv`: every metric against the
    reference, row by row. `structured_quality.csv`: JSON, schema and field metrics, over all rows and by label; only where
    the workload's answers are structured.
    """
    tables = {"single_turn.csv": _by_turns(comparison), "against_teacher.csv": _against_reference(comparison)}
    if comparison.workload_type is WorkloadType.STRUCTURED:
        tables["structured_quality.csv"] = _structured(comparison)
    return tables


def _by_turns(comparison: Comparison) -> str:
    lines = (
        [arm.candidate, arm.variant.value, label, metric, *_figures(score)]
        for arm in comparison.evaluated
        if arm.report is not None
        for label, report in arm.report.suites.get("turns", {}).items()
        for metric, score in report.scores.items()
    )
    return _csv(["candidate", "variant", "turns", "metric", "value", "low", "high", "rows"], lines)


def _structured(comparison: Comparison) -> str:
    lines = (
        [arm.candidate, arm.variant.value, suite, label, metric, *_figures(score)]
        for arm in comparison.evaluated
        if arm.report is not None
        for suite, label, scores in (
            ("all", "all", arm.report.scores),
            *(
                (suite, label, report.scores)
                for suite, labels in arm.report.suites.items()
                for label, report in labels.items()
            ),
        )
        for metric, score in scores.items()
    )
    return _csv(["candidate", "variant", "suite", "label", "metric", "value", "low", "high", "rows"], lines)


def _against_reference(comparison: Comparison) -> str:
    header = ["candidate", "variant", "metric", "score", "reference", "difference", "low", "high", "discordance"]
    counts = ["wins", "losses", "ties", "rows", "conversations", "rows_worth", "method"]
    lines = (
        line
        for arm in comparison.evaluated
        # Rows are compared in pairs: an arm that was asked other ones has none. `decision` refuses it with the reason.
        if arm.row_ids == comparison.row_ids
        for line in _pairs(comparison, arm)
    )
    return _csv([*header, *counts], lines)


def _pairs(comparison: Comparison, arm: Arm) -> Iterator[list[Cell]]:
    clusters = np.array(comparison.clusters, dtype=object)
    decisive = {gate.metric for gate in gates_of_type(comparison.workload_type, comparison.reference)}
    for metric, column in comparison.reference.items():
        applies = ~np.isnan(column)
        if metric not in arm.scores or not applies.any():
            continue
        # As a gate counts it: an answer that a metric drops is a wrong one.
        ours, theirs = np.nan_to_num(arm.scores[metric][applies], nan=0.0), column[applies]
        resamples = RESAMPLES if metric in decisive else _FEWER_RESAMPLES
        # The margin has a part in p-values only, and those belong to registered gates.
        test = paired_test(ours, theirs, clusters[applies], margin=0.0, alpha=_ALPHA, resamples=resamples)
        wins, losses = int(np.sum(ours > theirs)), int(np.sum(ours < theirs))
        scores = [float(ours.mean()), float(theirs.mean()), test.difference, test.low, test.high, test.discordance]
        counts: list[Cell] = [
            wins,
            losses,
            test.n - wins - losses,
            test.n,
            test.clusters,
            round(test.n_effective, 1),
            test.method,
        ]
        yield [arm.candidate, arm.variant.value, metric, *scores, *counts]


def _figures(score: Score) -> list[Cell]:
    return list(asdict(score).values())


def _csv(header: Sequence[str], lines: Iterator[list[Cell]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in line] for line in lines)
    # A label can hold half a surrogate pair, which no file can.
    return out.getvalue().encode("utf-8", "replace").decode()


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
