"""Draws: which rows of a side are used when not all of them are.

What belongs here: pure functions on arrays, in hash order and balanced over classes. What does not: sides
(`assignment`), and files.
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
    by_class = np.lexsort((order, pooled))
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(pooled)) - np.repeat(starts, counts)
    return np.sort(by_class[rank < quotas[pooled[by_class]]])


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
