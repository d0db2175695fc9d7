"""Draws: which rows of a side are used when not all of them are.

What belongs here: pure functions on arrays, in hash order, in proportion or balanced over classes. What does not: sides
(`assignment`), which rows are of one class (`strata`), and files.
"""

from __future__ import annotations

import numpy as np

from flywheel_assets.core.datasets.index import Array

# With strategy `time` the exam looks at the newest rows: twice what is drawn, so that there is something to balance, and
# never more than half of the eval side, or a young workload would have nothing older left to train on.
WINDOW_DRAWS = 2


def balanced_draw(classes: Array, order: Array, size: int, *, rare: int) -> Array:
    """Rows to take, sorted: `size` at most, as evenly over the classes as their numbers allow.

    `classes` are small integers, one a row; classes with fewer than `rare` rows are pooled into one. Within a class rows
    are taken in ascending `order` (any numbers, one a row), so a larger draw contains a smaller one of the same rows.
    """
    if size >= len(classes):
        return np.arange(len(classes))
    pooled = pool_rare(classes, rare)
    counts = np.bincount(pooled)
    quotas = fill_evenly(counts, size)
    return np.flatnonzero(ranks(pooled, order) < quotas[pooled])


def proportional_draw(strata: Array, order: Array, size: int, lots: Array) -> Array:
    """Rows to take, sorted: `size` at most, every stratum within one row of its share of all rows.

    `strata` are small integers, one a row; `lots` (0..1, one a stratum) say whose shares are rounded up. Within a stratum
    rows are taken in ascending `order`, so a larger draw contains a smaller one but for rounding.
    """
    if size >= len(strata):
        return np.arange(len(strata))
    counts = np.bincount(strata, minlength=len(lots))
    quotas = shares_by_lot(counts, size, lots)
    return np.flatnonzero(ranks(strata, order) < quotas[strata])


def shares_by_lot(counts: Array, size: int, lots: Array) -> Array:
    """How many rows of each stratum: its share of `size`, rounded down or up, `size` in all (at most the sum of `counts`).

    Rounding up the largest remainders would leave a stratum whose share is always a third of a row out of every exam, and
    all rare tools with it. So it is a matter of lot: with the lots fixed for ever, a stratum is rounded up about as often
    as its remainder says (Ohlsson's sequential Poisson sampling, 1998), and stays so while shares change little.
    """
    total = int(counts.sum())
    quotas, remainders = np.divmod(counts.astype(np.int64) * size, total)
    seats = size - int(quotas.sum())
    left_over = np.flatnonzero(remainders)
    by_lot = left_over[np.argsort(lots[left_over] / remainders[left_over], kind="stable")]
    quotas[by_lot[:seats]] += 1
    return quotas


def floor_rows(classes: Array, order: Array, drawn: Array, least: int) -> Array:
    """Rows to add to the `drawn` ones, sorted: of each class as many as it lacks of `least`, in ascending `order`."""
    left = np.setdiff1d(np.arange(len(classes)), drawn)
    lacking = np.maximum(0, least - np.bincount(classes[drawn], minlength=int(classes.max(initial=0)) + 1))
    added: Array = left[ranks(classes[left], order[left]) < lacking[classes[left]]]
    return added


def over_limit(groups: Array, order: Array, limit: int) -> Array:
    """Which rows are too many of their group, as a mask: all but its first `limit` in ascending `order`."""
    return ranks(groups, order) >= limit


def ranks(groups: Array, order: Array) -> Array:
    """The place of each row in its group, from 0, in ascending `order`."""
    by_group = np.lexsort((order, groups))
    begins = np.ones(len(groups), bool)
    begins[1:] = groups[by_group][1:] != groups[by_group][:-1]
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(groups)))
    rank: Array = np.empty(len(groups), np.int64)
    rank[by_group] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return rank


def shares_taken(classes: Array, taken: Array) -> Array:
    """Of the class of each row, the share (0..1) of rows among `taken` (row numbers)."""
    counts = np.bincount(classes)
    share: Array = np.bincount(classes[taken], minlength=len(counts)) / np.maximum(counts, 1)
    return share[classes]


def pool_rare(classes: Array, rare: int) -> Array:
    """The classes with those of fewer than `rare` rows put into one (numbered after all others)."""
    counts = np.bincount(classes)
    return np.where(counts[classes] < rare, len(counts), classes)


def fill_evenly(counts: Array, size: int) -> Array:
    """How many rows of each class: the same number of all, but no more than a class has, `size` in all.

    What cannot be shared evenly goes one each to the first classes that have more.
    """
    quotas = np.zeros(len(counts), np.int64)
    left = min(size, int(counts.sum()))
    while left:
        open_classes = np.flatnonzero(quotas < counts)
        each = left // len(open_classes)
        if each == 0:
            quotas[open_classes[:left]] += 1
            break
        taken = np.minimum(each, counts[open_classes] - quotas[open_classes])
        quotas[open_classes] += taken
        left -= int(taken.sum())
    return quotas


def training_window_end(eval_timestamps: Array, eval_size: int) -> float:
    """Strategy `time`: the moment up to which is trained and after which is examined (epoch seconds).

    It leaves the newest `WINDOW_DRAWS * eval_size` rows of the eval side after it, at most half of them; rows with that
    very timestamp lie before it. Minus infinity without rows.
    """
    rows = len(eval_timestamps)
    newest = min(WINDOW_DRAWS * eval_size, rows // 2)
    if rows == 0:
        return float("-inf")
    return float(np.sort(eval_timestamps)[rows - newest - 1])
