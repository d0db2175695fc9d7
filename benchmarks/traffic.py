"""Simulated traffic for the promises of decisions: conversations of every length, rows that are right or wrong together.

What belongs here: what traffic looks like and how the exam's rows are drawn from it, by the functions that draw them for
real. What does not: what is decided on them (`decision_statistics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.datasets.draw import over_limit, proportional_draw

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
# How often each tool is called; conversations are about one of them.
_TOOLS = (0.5, 0.25, 0.15, 0.07, 0.03)
_MANY = 400_000


@dataclass(frozen=True)
class Setting:
    """One kind of experiment. `loss` is what every arm at the edge loses; `right` is the share the reference gets right.

    `conversations` have lengths by `lengths`: `even` (1 to `longest` rows), `few_long` (one in twenty has 30 rows, the
    others one) or `pareto` (1 + a tail of 1.3, at most 40). Rows are `lost` one by one (`rows`), alike by `icc` within a
    conversation (`alike`), with whole conversations (`whole`), or so that longer ones are likelier (`longer`). `cap` rows of
    a conversation are drawn at most, and `drawn` rows in all, in proportion to tools; None takes all. `gate` is what is
    asked for. `looks` are eval-row counts; `arms` compete. `good` arms are as planned for, the others hopeless.
    """

    name: str
    conversations: int
    margin: float
    loss: float
    arms: int = 1
    right: float = 1.0
    lengths: str = "even"
    longest: int = 1
    lost: str = "rows"
    icc: float = 0.3
    cap: int | None = None
    drawn: int | None = None
    gate: str = "margin"
    looks: tuple[int, ...] = ()
    good: int = 0


@dataclass(frozen=True)
class Rows:
    """The rows of one experiment in the order in which they are drawn; `clusters` are codes."""

    clusters: Codes
    sizes: Codes

    @property
    def n(self) -> int:
        """How many."""
        return int(self.clusters.size)


def lengths(setting: Setting, conversations: int, rng: np.random.Generator) -> Codes:
    """Rows of each conversation, as logged."""
    match setting.lengths:
        case "few_long":
            return np.where(rng.random(conversations) < 0.05, 30, 1)
        case "pareto":
            return np.minimum(40, 1 + np.floor(rng.pareto(1.3, conversations))).astype(np.int64)
        case _:
            return rng.integers(1, setting.longest + 1, conversations)


def drawn(setting: Setting, rng: np.random.Generator) -> Rows:
    """The eval rows of one experiment: capped by conversation, and drawn in proportion to tools, in hash order."""
    sizes = lengths(setting, setting.conversations, rng)
    tools = rng.choice(len(_TOOLS), setting.conversations, p=_TOOLS)
    codes = np.repeat(np.arange(setting.conversations), sizes)
    order = rng.random(codes.size)
    if setting.cap is not None:
        kept = ~over_limit(codes, order, setting.cap)
        codes, order = codes[kept], order[kept]
    if setting.drawn is not None:
        taken = proportional_draw(tools[codes], order, setting.drawn, rng.random(len(_TOOLS)))
        codes, order = codes[taken], order[taken]
    return Rows(codes[np.argsort(order)], sizes)


def events(share: float, setting: Setting, rows: Rows, rng: np.random.Generator) -> Floats:
    """1 on a share of the rows in expectation, one row a value; together by conversation as `setting.lost` says."""
    conversations = rows.sizes.size
    match setting.lost:
        case "whole":
            return (rng.random(conversations) < share).astype(float)[rows.clusters]
        case "longer":
            chances = np.minimum(1.0, _slope(setting, share) * rows.sizes)
            return (rng.random(conversations) < chances).astype(float)[rows.clusters]
        case "alike":
            spread = (1 - setting.icc) / setting.icc
            own = rng.beta(share * spread, (1 - share) * spread, conversations)[rows.clusters]
            return (rng.random(rows.n) < own).astype(float)
        case _:
            return (rng.random(rows.n) < share).astype(float)


@cache
def _slope(setting: Setting, share: float) -> float:
    """How likely a conversation is lost for each of its rows, so that this share of the rows that may be drawn is."""
    sizes = lengths(setting, _MANY, np.random.default_rng(1))
    counted = sizes if setting.cap is None else np.minimum(sizes, setting.cap)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.sum(counted * np.minimum(1.0, middle * sizes)) / counted.sum()) < share:
            low = middle
        else:
            high = middle
    return low
