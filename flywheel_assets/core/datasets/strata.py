"""Strata: the parts of the traffic whose shares a proportional exam keeps.

What belongs here: which rows are alike, by facts of the index alone. What does not: drawing them (`draw`), and the suites
that reports are read by (`core.suites`), which are labelled on the drawn rows only.
"""

from __future__ import annotations

import numpy as np

from flywheel_assets.core.datasets.conversation import TEXT, hash64
from flywheel_assets.core.datasets.index import Array

# Answers are labels where nearly all of them are short lines that come again: an odd "I do not know" must not change what
# the strata are, and a set that grows with the traffic is no set of labels.
MIN_LABEL_SHARE = 0.95
MAX_LABELS = 200
MIN_ROWS_A_LABEL = 5
_SEVERAL_TURNS = np.uint64(0x9E3779B97F4A7C15)


def strata_of(kinds: Array, kind_names: list[str], labels: Array, answer_sizes: Array, several_turns: Array) -> Array:
    """The stratum of each row as a 64-bit hash, the same for the same kind of row in every build.

    A row that calls a tool is of that tool's stratum, one that calls none though tools were offered of the stratum of
    those; rows of plain text are told apart by their label where answers are a closed set of labels (`closed_labels`),
    else by the power of two their length lies below. Each of these is two strata: one user turn, and several.
    """
    names = np.array([hash64(name.encode()) for name in kind_names], np.uint64)
    strata: Array = names[kinds] if len(names) else np.zeros(len(kinds), np.uint64)
    text = np.flatnonzero(kinds == kind_names.index(TEXT)) if TEXT in kind_names else np.zeros(0, np.int64)
    lengths = np.frexp(answer_sizes[text].astype(np.float64))[1]
    by_length = np.array([hash64(f"{TEXT} {bound}".encode()) for bound in range(65)], np.uint64)[lengths]
    told = labels[text] if closed_labels(labels[text]) else np.zeros(len(text), np.uint64)
    strata[text] = np.where(told != 0, told, by_length)
    return np.where(several_turns, strata ^ _SEVERAL_TURNS, strata)


def closed_labels(labels: Array) -> bool:
    """Whether these answers (hashes, 0 for what is no short line) are a closed, small set of labels."""
    told = labels[labels != 0]
    distinct = len(np.unique(told))
    few = 2 <= distinct <= MAX_LABELS and len(told) >= MIN_ROWS_A_LABEL * distinct
    return few and len(told) >= MIN_LABEL_SHARE * len(labels)
