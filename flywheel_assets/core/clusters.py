"""Clusters: what rows of the same conversation are worth together (Miller, arXiv 2411.00640).

What belongs here: the effective sample size and the resampling of whole clusters. What is concluded from them stands in
`core.statistics`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

RESAMPLES = 10_000
# Weights of this many resamples times clusters are held at once (8 MB).
_CHUNK_WEIGHTS = 1 << 20


def cluster_codes(clusters: Sequence[Hashable] | NDArray[Any] | None, n: int) -> NDArray[np.int64]:
    """Clusters as 0..k-1, one code a row; without clusters every row is its own. ValueError when the lengths differ."""
    if clusters is None:
        return np.arange(n, dtype=np.int64)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} rows: each row needs exactly one.")
    codes: dict[Hashable, int] = {}
    return np.fromiter((codes.setdefault(cluster, len(codes)) for cluster in clusters), dtype=np.int64, count=n)


def effective_clusters(codes: NDArray[np.int64]) -> float:
    """How many conversations of equal size are worth as much as these, 1 to their number (Kish 1965).

    (sum of sizes) squared over the sum of squared sizes: five conversations of 30 rows beside a hundred of one row are worth
    14, because a mean over rows follows the long ones.
    """
    sizes = np.bincount(codes).astype(np.float64)
    return float(sizes.sum() ** 2 / np.sum(sizes**2))


def matched_n(scores: ArrayLike, codes: NDArray[np.int64]) -> float:
    """How many independent yes-or-no rows would tell the mean of these scores (0..1) as exactly as they do.

    mean (1 - mean) over the cluster-robust variance of the mean: the effective sample size that Wilson's interval takes in
    complex surveys (Franco, Little, Louis, Slud 2019), which holds for scores between 0 and 1 as for 0 and 1 themselves.
    Where all scores are equal no variance is seen, and every conversation counts once, at its effective number.

    A long conversation pulls the mean towards itself, so that its own deviation is seen too small: it is divided by what the
    others leave it (CR3, MacKinnon and White 1985), and the degrees of freedom are those of Satterthwaite (1946) for
    conversations as uneven as these. Without that, intervals hold the truth in 84 to 92% where a few are long.
    """
    values = np.asarray(scores, dtype=np.float64)
    n, clusters, mean = values.size, int(codes.max()) + 1, float(values.mean())
    if clusters == n and bool(np.all((values == 0.0) | (values == 1.0))):
        return float(n)
    if clusters == 1:
        return 1.0
    sizes = np.bincount(codes).astype(np.float64)
    deviations = np.bincount(codes, weights=values - mean, minlength=clusters) / (1.0 - sizes / n)
    variance = (clusters - 1) / clusters * float(np.sum(deviations**2)) / n**2
    if variance <= 1e-15:
        return effective_clusters(codes)
    freedom = float(np.sum(sizes**2) ** 2 / np.sum(sizes**4))
    return max(1.0, mean * (1.0 - mean) / variance * small_sample(freedom))


def effective_n(values: ArrayLike, codes: NDArray[np.int64], *, guard: float, size: float) -> float:
    """How many independent rows the clustered ones are worth: n over the design effect, between 1 and n.

    The design effect compares the cluster-robust variance of the mean with the one of independent rows. Where few rows are
    lost it is seen too small in just those draws that look best, so one imagined conversation of `size` rows (`tail_size`),
    in which every value is `guard` (the worst possible), is looked at with the others, as in `bootstrap_means`.
    """
    seen = np.asarray(values, dtype=np.float64)
    n, clusters = seen.size, int(codes.max()) + 1
    if clusters == n:
        return float(n)
    mean = (float(seen.sum()) + guard * size) / (n + size)
    independent = float(np.sum((seen - mean) ** 2)) + size * (guard - mean) ** 2
    if independent <= 1e-12:
        return effective_clusters(codes)
    sums = np.append(np.bincount(codes, weights=seen - mean, minlength=clusters), size * (guard - mean))
    design_effect = (clusters + 1) / clusters * float(np.sum(sums**2)) / independent
    return float(max(1.0, n / max(1.0, design_effect) * small_sample(effective_clusters(codes))))


def tail_size(sizes: NDArray[np.int64], share: float) -> float:
    """Mean rows of the longest conversations that together hold this share of all rows; the longest's where it is 0 or less.

    `sizes` are rows by conversation. A model that loses this share of the rows does so with the fewest conversations, and is
    seen losing least often, if it loses the longest ones whole. So this is the size of the lost conversation that must be
    imagined where none was drawn: one of average size is too small wherever sizes are uneven (a bad model passed in up to
    39% of experiments).
    """
    longest_first = np.sort(sizes)[::-1].astype(np.float64)
    filled = np.cumsum(longest_first)
    rows = share * filled[-1]
    if rows <= longest_first[0]:
        return float(longest_first[0])
    whole = int(np.searchsorted(filled, min(rows, filled[-1]), side="right"))
    if whole == longest_first.size:
        return float(filled[-1] / longest_first.size)
    return float(rows / (whole + (rows - filled[whole - 1]) / longest_first[whole]))


def small_sample(clusters: float) -> float:
    """What a variance estimated from so few clusters is worth, 0..1.

    The squared ratio of the normal and Student's 97.5% quantiles, by which Korn and Graubard (1998) widen exact intervals of
    survey proportions.
    """
    if clusters < 2:
        return 0.0
    return float((special.ndtri(0.975) / special.stdtrit(clusters - 1, 0.975)) ** 2)


def bootstrap_means(
    values: ArrayLike,
    codes: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    guard: float | None = None,
    size: float = 1.0,
) -> NDArray[np.float64]:
    """Means of `resamples` Bayesian bootstraps (Rubin 1981): every cluster gets a random weight, rows share their cluster's.

    `guard` adds one imagined conversation of `size` rows (`tail_size`) in which every score has that value. With the worst
    possible value and rows that each stand alone, the lower quantile of the means is Gaffke's bound: for 0/1 scores it is
    the exact binomial one. It stays honest where a plain bootstrap sees no spread because no failure happened to be drawn,
    or because the one long conversation that fails was not. Shape (resamples,).
    """
    scores = np.asarray(values, dtype=np.float64)
    clusters = int(codes.max()) + 1
    sums = np.bincount(codes, weights=scores, minlength=clusters)
    sizes = np.bincount(codes, minlength=clusters).astype(np.float64)
    if guard is not None:
        sums, sizes = np.append(sums, guard * size), np.append(sizes, size)
    totals = np.stack([sums, sizes], axis=1)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CHUNK_WEIGHTS // sums.size)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        weighted = rng.standard_exponential((stop - start, sums.size)) @ totals
        means[start:stop] = weighted[:, 0] / weighted[:, 1]
    return means
