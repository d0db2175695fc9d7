"""Calibration: how often a judge is right, and what its rate of "right" then means.

A judge that calls q1 of the right answers right (its sensitivity) and q0 of the wrong ones wrong (its specificity) says
p = theta q1 + (1 - theta) (1 - q0) where theta of the answers are right. Solved for theta that is the corrected rate, as in
Rogan and Gladen (1978) and, for language models as judges, Lee et al. (arXiv 2511.21140).

The interval is the delta method's, which adds up what p, q1 and q0 each leave open: p at its effective number of rows, all
three counted with a few imagined observations on either side (Agresti and Coull 1998; Agresti and Caffo 2000), because a
judge that made no mistake in twenty labels is not known to make none. A simulation in the tests measures it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from flywheel_assets.core.clusters import cluster_codes, matched_n
from flywheel_assets.core.rows import Json

MIN_LABELS = 10
"""Labels of each kind (right, wrong) below which nothing is concluded: one label more or less would move q by a tenth."""

_IMAGINED_LABELS = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a judge said of labelled answers. `right` and `wrong` count the labels it gave a verdict on, `hits` the right
    ones it called right, `rejections` the wrong ones it called wrong, `unparsable` the labels without a verdict."""

    right: int
    hits: int
    wrong: int
    rejections: int
    unparsable: int = 0

    @property
    def sensitivity(self) -> float | None:
        """q1: of the right answers, the share it calls right; None without any."""
        return self.hits / self.right if self.right else None

    @property
    def specificity(self) -> float | None:
        """q0: of the wrong answers, the share it calls wrong; None without any."""
        return self.rejections / self.wrong if self.wrong else None

    @property
    def unusable(self) -> str | None:
        """Why nothing can be corrected with it; None where it can."""
        for kind, count in (("right", self.right), ("wrong", self.wrong)):
            if count < MIN_LABELS:
                return f"{count} labelled answers are {kind}, and {MIN_LABELS} are needed; label more in judge.labels"
        q1, q0 = self.hits / self.right, self.rejections / self.wrong
        if q0 + q1 <= 1.0:
            return (
                f"the judge is no better than a coin on the labels (sensitivity {q1:.2f}, specificity {q0:.2f}; their sum "
                "must exceed 1): take another judge, or look at the labels"
            )
        return None


@dataclass(frozen=True, slots=True)
class Corrected:
    """The corrected share of right answers with its 95% interval (0..1), of `n` judged answers; all None where unusable."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    calibration: Calibration

    def to_json(self) -> Json:
        """The form of an aggregate."""
        found = self.calibration
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "sensitivity": found.sensitivity,
            "specificity": found.specificity,
            "labels": {"right": found.right, "wrong": found.wrong, "unparsable": found.unparsable},
            "unusable": found.unusable,
        }


def calibrate(labels: Sequence[bool], said: Sequence[bool | None]) -> Calibration:
    """Labels (is it right?) beside what the judge said of the same answers; None where it gave no verdict."""
    pairs = [(label, verdict) for label, verdict in zip(labels, said, strict=True) if verdict is not None]
    return Calibration(
        right=sum(label for label, _ in pairs),
        hits=sum(label and verdict for label, verdict in pairs),
        wrong=sum(not label for label, _ in pairs),
        rejections=sum(not label and not verdict for label, verdict in pairs),
        unparsable=sum(verdict is None for verdict in said),
    )


def corrected_rate(
    said: ArrayLike, calibration: Calibration, clusters: Sequence[Hashable] | None = None, *, level: float = 0.95
) -> Corrected:
    """The corrected share of right answers, from what the judge said of each (1 right, 0 wrong, no NaN, at least one).

    Value and bounds are clipped to 0..1. Labels are taken as independent of each other and of the rows.
    """
    verdicts = np.asarray(said, dtype=np.float64)
    q1, q0 = calibration.sensitivity, calibration.specificity
    if calibration.unusable is not None or q1 is None or q0 is None:
        return Corrected(None, None, None, int(verdicts.size), calibration)
    rate = float(verdicts.mean())
    value = _clip((rate + q0 - 1.0) / (q0 + q1 - 1.0))
    low, high = _bounds(rate, matched_n(verdicts, cluster_codes(clusters, verdicts.size)), calibration, level)
    return Corrected(value, min(low, value), max(high, value), int(verdicts.size), calibration)


def _bounds(rate: float, n: float, found: Calibration, level: float) -> tuple[float, float]:
    """The two-sided interval of theta, clipped to 0..1."""
    z = float(special.ndtri(0.5 + level / 2))
    p, p_variance = _counted(rate * n, n, z * z)
    q1, q1_variance = _counted(found.hits, found.right, _IMAGINED_LABELS)
    q0, q0_variance = _counted(found.rejections, found.wrong, _IMAGINED_LABELS)
    better = q0 + q1 - 1.0
    if better <= 0.0:
        # Only just better than a coin: the labels leave every rate open.
        return 0.0, 1.0
    theta = (p + q0 - 1.0) / better
    spread = z * math.sqrt(p_variance + (1.0 - theta) ** 2 * q0_variance + theta**2 * q1_variance) / better
    return _clip(theta - spread), _clip(theta + spread)


def _counted(successes: float, n: float, imagined: float) -> tuple[float, float]:
    """A share and its variance with so many imagined observations, half of them successes."""
    total = n + imagined
    share = (successes + imagined / 2.0) / total
    return share, share * (1.0 - share) / total


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
