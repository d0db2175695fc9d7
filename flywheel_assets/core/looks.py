"""Looks: how often a workload may be decided as its traffic grows, and how much of the error rate each decision spends.

What belongs here: the schedule and the bookkeeping of looks taken. What does not: the verdict (`core.decisions`).

Deciding again whenever rows arrive, each time at the full alpha, promotes a bad model sooner or later. So the eval-row
counts at which one will look are registered beforehand, and alpha is spent over them by Lan and DeMets' (1983) function of
O'Brien and Fleming's kind: very little early, nearly all at the last look. The parts are added up (a union bound) although
looks at the same model would allow a little more: between looks adapters are trained anew and rows are drawn again, so how
looks depend on each other is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import special

from flywheel_assets.core.rows import Json


@dataclass(frozen=True, slots=True)
class Look:
    """One look that was taken: the `number`-th, at `rows` eval rows, on the comparison of that data version.

    `registered` and `total_alpha` are the schedule it was taken under, `alpha` what it spent; `winner` names candidate,
    variant and adapter version of a promotion.
    """

    number: int
    rows: int
    comparison: str
    alpha: float
    verdict: str
    registered: tuple[int, ...]
    total_alpha: float
    winner: tuple[str, str, str | None] | None = None

    def repeats(self, other: Look) -> bool:
        """Whether the other one judged the same comparison under the same schedule."""
        same = (self.comparison, self.registered, self.total_alpha)
        return same == (other.comparison, other.registered, other.total_alpha)

    def to_json(self) -> Json:
        """A JSON-ready form; `from_json` is its inverse."""
        return asdict(self) | {
            "registered": list(self.registered),
            "winner": None if self.winner is None else list(self.winner),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Look:
        """The look `to_json` gave."""
        winner = value["winner"]
        fixed = {"registered": tuple(value["registered"]), "winner": None if winner is None else tuple(winner)}
        return cls(**{**value, **fixed})


@dataclass(frozen=True, slots=True)
class Due:
    """The look that may be taken now, and the level it is taken at."""

    number: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """No look may be taken now; the next is at `next_rows` eval rows (None: all are taken). `last` is what stands."""

    next_rows: int | None
    last: Look | None


def spent_by(registered: Sequence[int], alpha: float) -> tuple[float, ...]:
    """How much of alpha is spent up to and with each look: 2 (1 - Phi(z / sqrt(t))), t the share of the last look's rows."""
    z = float(special.ndtri(1 - alpha / 2))
    return tuple(2.0 * float(special.ndtr(-z / math.sqrt(rows / registered[-1]))) for rows in registered)


def next_look(
    registered: Sequence[int], taken: Sequence[Look], *, alpha: float, rows: int, comparison: str
) -> Due | Waiting:
    """Which look a comparison of `rows` eval rows is. Judging the same comparison again (another gate) is no new look.

    Without registered looks every decision is taken at the full alpha. A look that was passed over leaves its alpha to the
    next. Looks taken under another schedule do not count: a new schedule is a new registration, which the evidence shows.
    """
    if not registered:
        seen = dict.fromkeys(look.comparison for look in taken)
        return Due(len(seen) + (comparison not in seen), alpha)
    valid = [look for look in taken if look.registered == tuple(registered) and look.total_alpha == alpha]
    last = valid[-1] if valid else None
    if last is not None and last.comparison == comparison:
        return Due(last.number, last.alpha)
    reached = sum(count <= rows for count in registered)
    if reached == 0 or (last is not None and last.number >= reached):
        return Waiting(registered[reached] if reached < len(registered) else None, last)
    already = sum({look.number: look.alpha for look in valid}.values())
    return Due(reached, spent_by(registered, alpha)[reached - 1] - already)
