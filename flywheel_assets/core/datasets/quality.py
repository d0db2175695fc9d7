"""Quality in numbers: how many of a folder's records were cut off, refused or rated, and how many nearly repeat another.

What belongs here: counting over the index. What does not: what makes an answer a refusal (`core.cleaning.quality`), and
what is left out of datasets for it (`split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from flywheel_assets.core.datasets.index import Array, near_keys, numbers
from flywheel_assets.core.datasets.segments import Segment


def quality_counts(records: Path, segments: Sequence[Segment], alive: Array) -> dict[str, int]:
    """Counts over the records that count (`alive`), as `RecordsSummary.quality` names them."""
    cut_off, refusal = (numbers(records, segments, name, np.bool_) for name in ("cut_off", "refusal"))
    rated = ~np.isnan(numbers(records, segments, "feedback", np.float64))
    sizes = near_cluster_sizes(near_keys(records, segments)[alive])
    return {
        "cut_off": int(cut_off[alive].sum()),
        "refusal": int(refusal[alive].sum()),
        "rated": int(rated[alive].sum()),
        "near_clusters": len(sizes),
        "near_records": int(sizes.sum()),
        "near_largest": int(sizes.max(initial=0)),
    }


def near_cluster_sizes(keys: Array) -> Array:
    """Rows in each group of two or more that share keys, directly or through others. `keys`: rows x bands, 0 for none."""
    row, band = np.nonzero(keys)
    _, key, counts = np.unique(keys[row, band], return_inverse=True, return_counts=True)
    shared = counts[key] > 1
    row, key = row[shared], key[shared]
    if not len(row):
        return np.empty(0, np.int64)
    rows, node = np.unique(row, return_inverse=True)
    _, key = np.unique(key, return_inverse=True)
    nodes = len(rows) + int(key.max()) + 1
    graph = coo_array((np.ones(len(row), np.int8), (node, len(rows) + key)), shape=(nodes, nodes))
    _, label = connected_components(graph, directed=False)
    sizes: Array = np.bincount(label[: len(rows)])
    return sizes[sizes > 1]
