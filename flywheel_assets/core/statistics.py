"""Statistics: intervals and paired tests over rows that may come in clusters.

What belongs here: plain functions on arrays and counts, each with its source. What does not: which metric is tested against
which margin (`core.decisions`), and how many rows that takes (`core.sample_size`).

Rows of one conversation are not independent: rows are counted at their effective sample size, and bootstraps resample whole
clusters (`core.clusters`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from flywheel_assets.core.clusters import (
    RESAMPLES,
    bootstrap_means,
    cluster_codes,
    effective_clusters,
    effective_n,
    matched_n,
    tail_size,
)

Floats = NDArray[np.float64]
# Bounds that equal the estimate may lie on its other side by this much, and a margin below it is none.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between two bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A paired comparison of a candidate with a reference against a margin, both one-sided tests of it.

    `difference` is candidate minus reference in -1..1; `low` and `high` are one-sided bounds at level alpha each;
    `p_non_inferior` tests "worse by the margin or more", `p_inferior` tests "not worse by more than the margin".
    `discordance` is the mean squared difference: for 0/1 scores, the share of rows on which the two disagree.
    `n` counts rows, `clusters` conversations, `clusters_effective` what these are worth (Kish); `method` names the test.
    ValueError where a figure is no number or a bound lies on the wrong side: a gate must never compare with either.
    """

    difference: float
    low: float
    high: float
    p_non_inferior: float
    p_inferior: float
    discordance: float
    n: int
    clusters: int
    clusters_effective: float
    n_effective: float
    method: str

    def __post_init__(self) -> None:
        ordered = -1.0 <= self.low <= self.difference + _ROUNDING and self.difference - _ROUNDING <= self.high <= 1.0
        sound = 0.0 <= self.p_non_inferior <= 1.0 and 0.0 <= self.p_inferior <= 1.0 and 0.0 <= self.discordance <= 1.0
        # NaN fails every comparison.
        if not (ordered and sound and self.n_effective > 0 and self.clusters_effective > 0):
            raise ValueError(f"a paired test came out as no test: {self}")


def is_binary(values: ArrayLike) -> bool:
    """Whether every value is 0 or 1."""
    array = np.asarray(values, dtype=np.float64)
    return bool(np.all((array == 0.0) | (array == 1.0)))


def mean_interval(
    values: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None, *, level: float = 0.95
) -> Interval:
    """The mean of scores in 0..1 (no NaN, at least one) with its two-sided interval.

    Wilson's interval at the sample size of `core.clusters.matched_n`: for independent 0/1 scores the plain one.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        raise ValueError("an interval needs at least one score.")
    n = matched_n(scores, cluster_codes(clusters, scores.size))
    mean = float(scores.mean())
    low, high = wilson(mean * n, n, level=level)
    return Interval(mean, min(low, mean), max(high, mean))


def wilson(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval of a proportion, two-sided. Counts may be fractional (effective sample sizes)."""
    z = float(special.ndtri(0.5 + level / 2))
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and 1 the bounds are exact; rounding must not push them past the estimate.
    low = 0.0 if successes <= 0 else (centre - spread) / scale
    high = 1.0 if successes >= n else (centre + spread) / scale
    return max(0.0, low), min(1.0, high)


def tango_z(gained: float, lost: float, n: float, difference: float) -> float:
    """Tango's (1998) score statistic for "the paired difference of proportions is `difference`", in (-1, 1).

    `gained` rows only the candidate got right, `lost` rows only the reference; about standard normal. Counts may be
    fractional.
    """
    variance = n * tango_variance(gained / n, lost / n, difference)
    distance = gained - lost - n * difference
    if variance <= 0.0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def tango_variance(gained: float, lost: float, difference: float) -> float:
    """Variance of one row's difference as Tango (1998) estimates it under the hypothesis; `gained` and `lost` are shares."""
    b = -gained - lost + (2.0 - gained + lost) * difference
    c = -lost * difference * (1.0 - difference)
    # The maximum-likelihood share of lost rows under the hypothesis.
    lost_share = (math.sqrt(max(b * b - 8.0 * c, 0.0)) - b) / 4.0
    return 2.0 * lost_share + difference * (1.0 - difference)


def tango_bounds(gained: float, lost: float, n: float, *, alpha: float = 0.05) -> tuple[float, float]:
    """Lower and upper one-sided bounds, level `alpha` each, of a paired difference of proportions (Tango 1998)."""
    z = float(special.ndtri(1 - alpha))
    estimate = (gained - lost) / n
    low = _root(lambda d: tango_z(gained, lost, n, d) - z, -1.0, estimate)
    high = _root(lambda d: tango_z(gained, lost, n, d) + z, estimate, 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that falls from positive to negative crosses zero in [low, high], to 1e-12."""
    while high - low > 1e-12:
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value that candidate and reference are right equally often (McNemar's test, binomial form)."""
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(special.bdtr(min(gained, lost), discordant, 0.5)))


def paired_test(
    candidate: ArrayLike,
    reference: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
    seed: int = 0,
    resamples: int = RESAMPLES,
    by_construction: bool = True,
) -> PairedTest:
    """Is the candidate worse than the reference by less than `margin`? Row by row, on scores in 0..1 without NaN.

    `margin` in -1..1; a negative one asks for a gain. Binary scores: Tango's score test. Where the reference is right on
    every row, `by_construction` and not by luck, rows can only be lost, and the exact binomial test takes its place; where
    the candidate happened to gain none, Tango's bound promises a little too much, and the stricter of the two counts. Other
    scores: the guarded clustered bootstrap of `bootstrap_means`. ValueError for rows that do not belong together, scores
    outside of 0..1 (NaN among them), and margins outside of -1..1.
    """
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if ours.size == 0 or ours.size != theirs.size:
        raise ValueError(f"a paired test needs the same rows twice, at least one: {ours.size} and {theirs.size} given.")
    if not (_are_scores(ours) and _are_scores(theirs)):
        raise ValueError("a paired test takes scores between 0 and 1; something else was given (NaN, or out of range).")
    if not -1.0 <= margin <= 1.0:
        raise ValueError(f"a margin lies between -1 and 1; {margin} was given.")
    if abs(margin) < _ROUNDING:
        # Squares of what is smaller vanish before the rest of Tango's formula does.
        margin = 0.0
    codes = cluster_codes(clusters, ours.size)
    differences = ours - theirs
    # Where the rows speak for the candidate, it could still lose the margin with the longest conversations alone. Where they
    # speak against it, the longest one is as much as any imagined loss may weigh, so that p falls as the margin grows.
    size = tail_size(np.bincount(codes), margin if float(differences.mean()) > -margin else 0.0)
    n_effective = effective_n(differences, codes, guard=-1.0, size=size)
    if is_binary(ours) and is_binary(theirs):
        certain = by_construction and bool(np.all(theirs == 1.0))
        low, high, p_low, p_high, method = _binary_pair(differences, n_effective, certain, margin, alpha)
    else:
        best = 1.0 - float(theirs.min())
        low, high, p_low, p_high = _bootstrap_pair(differences, codes, margin, alpha, best, size, seed, resamples)
        method = "paired clustered bootstrap"
    return PairedTest(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_non_inferior=p_low,
        p_inferior=p_high,
        discordance=float(np.mean(differences**2)),
        n=int(ours.size),
        clusters=int(codes.max()) + 1,
        clusters_effective=effective_clusters(codes),
        n_effective=n_effective,
        method=method,
    )


def _are_scores(values: Floats) -> bool:
    return bool(np.all((values >= 0.0) & (values <= 1.0)))


def _binary_pair(
    differences: Floats, n: float, always_right: bool, margin: float, alpha: float
) -> tuple[float, float, float, float, str]:
    # Clusters shrink the counts: the same shares, seen on the rows they are worth.
    scale = n / differences.size
    gained, lost = float(np.sum(differences > 0)) * scale, float(np.sum(differences < 0)) * scale
    exact = _lost_share(lost, n, margin, alpha)
    if always_right:
        return *exact, "exact binomial test of the lost rows"
    z = tango_z(gained, lost, n, -margin)
    low, high = tango_bounds(gained, lost, n, alpha=alpha)
    p_low, p_high = float(special.ndtr(-z)), float(special.ndtr(z))
    if gained > 0:
        return low, high, p_low, p_high, "Tango score test"
    return (
        min(low, exact[0]),
        high,
        max(p_low, exact[2]),
        p_high,
        "Tango score test and exact binomial test of the lost rows",
    )


def _lost_share(lost: float, n: float, margin: float, alpha: float) -> tuple[float, float, float, float]:
    """Bounds and p-values where rows can only be lost (Clopper-Pearson; counts may be fractional).

    Where nothing can be gained, a margin of 0 or below asks for what cannot be: it is never shown (p 1), and missed for
    certain (p 0), but for a margin of 0 of which no lost row says anything yet.
    """
    low = -1.0 if lost >= n else -float(special.betaincinv(lost + 1, n - lost, 1 - alpha))
    high = 0.0 if lost <= 0 else -float(special.betaincinv(lost, n - lost + 1, alpha))
    if margin <= 0.0:
        return low, high, 1.0, 1.0 if margin == 0.0 and lost <= 0 else 0.0
    return (
        low,
        high,
        1.0 if lost >= n else float(special.betaincc(lost + 1, n - lost, margin)),
        1.0 if lost <= 0 else float(special.betainc(lost, n - lost + 1, margin)),
    )


def _bootstrap_pair(
    differences: Floats,
    codes: NDArray[np.int64],
    margin: float,
    alpha: float,
    best: float,
    size: float,
    seed: int,
    resamples: int,
) -> tuple[float, float, float, float]:
    pessimistic = bootstrap_means(differences, codes, seed=seed, resamples=resamples, guard=-1.0, size=size)
    optimistic = bootstrap_means(differences, codes, seed=seed, resamples=resamples, guard=best, size=size)
    mean = float(differences.mean())
    return (
        min(float(np.quantile(pessimistic, alpha)), mean),
        max(float(np.quantile(optimistic, 1 - alpha)), mean),
        (1 + int(np.sum(pessimistic <= -margin))) / (resamples + 1),
        (1 + int(np.sum(optimistic >= -margin))) / (resamples + 1),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the given order: comparing them with alpha keeps the family-wise error rate."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
