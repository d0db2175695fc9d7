"""Looks: how often a workload may be decided as its traffic grows, and how much of the error rate each decision spends.

What belongs here: the schedule, and the bookkeeping of looks taken. What does not: the verdict (`core.decisions`), and where
the log of looks lies (`resources.looks`).

Deciding again whenever rows arrive, each time at the full alpha, promotes a bad model sooner or later. So the eval-row
counts at which one will look are registered beforehand, and alpha is spent over them by Lan and DeMets' (1983) function of
O'Brien and Fleming's kind: very little early, nearly all at the last look. The parts are added up (a union bound) although
looks at the same model would allow a little more: between looks adapters are trained anew and rows are drawn again, so how
looks depend on each other is not known.

The log only grows. Whatever becomes of the settings, what a look spent is spent; only a person who starts over, with a
name and a reason, gets alpha back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from scipy import special

from flywheel_assets.core.gates import Gate
from flywheel_assets.core.rows import Json

# Sums of levels are exact to about 1e-17. A level this low promotes nothing: no bootstrap of ours comes near it.
NOTHING = 1e-12


class StartOverRefused(ValueError):
    """Starting over would make no sense, or lacks a name or a reason; the message says so."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look that was taken: the `number`-th, at `rows` eval rows, on the comparison of that data version.

    `registered` and `total_alpha` are the schedule it was taken under (none registered: a decision at the full alpha),
    `alpha` what it spent; `winner` names candidate, variant and adapter version of a promotion, and `answered_by` what it
    answered with (`core.comparison.ArmResult`). `gates` are those it was judged by; both None where that was not written
    down. `time` (ISO 8601, UTC) is when it was taken, None in evidence.
    """

    number: int
    rows: int
    comparison: str
    alpha: float
    verdict: str
    registered: tuple[int, ...]
    total_alpha: float
    winner: tuple[str, str, str | None] | None = None
    gates: tuple[Gate, ...] | None = None
    answered_by: str | None = None
    time: str | None = None

    @property
    def schedule(self) -> tuple[tuple[int, ...], float]:
        """What it was taken under: the registered counts and alpha."""
        return self.registered, self.total_alpha

    def repeats(self, other: Look) -> bool:
        """Whether the other one judged the same comparison under the same schedule: together they spend once."""
        return (self.comparison, self.schedule) == (other.comparison, other.schedule)

    def timeless(self) -> Look:
        """Without the time: what it means."""
        return replace(self, time=None)

    def to_json(self) -> Json:
        """A JSON-ready form; `from_json` is its inverse."""
        value = asdict(self)
        if self.answered_by is None:
            # As looks were written before it was told: what they hash to stays what it was.
            del value["answered_by"]
        return value | {
            "registered": list(self.registered),
            "winner": None if self.winner is None else list(self.winner),
            "gates": None if self.gates is None else [gate.to_json() for gate in self.gates],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Look:
        """The look `to_json` gave, or a release before it."""
        winner, gates = value["winner"], value.get("gates")
        fixed = {
            "registered": tuple(value["registered"]),
            "winner": None if winner is None else tuple(winner),
            "gates": None if gates is None else tuple(Gate.from_json(gate) for gate in gates),
        }
        return cls(**{**value, **fixed})


@dataclass(frozen=True, slots=True)
class StartOver:
    """A person gave the workload its whole alpha back: who, why and when (ISO 8601, UTC)."""

    who: str
    why: str
    time: str

    @property
    def says(self) -> str:
        """The sentence that every later decision carries."""
        return f"The looks were started over on {self.time} by {self.who}: {self.why}"

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StartOver:
        """The inverse of `to_json`."""
        return cls(**value)


Entry = Look | StartOver


def entry_to_json(entry: Entry) -> Json:
    """An entry of the log, with its kind."""
    return {"kind": "look" if isinstance(entry, Look) else "start_over", **entry.to_json()}


def entry_from_json(value: Mapping[str, Any]) -> Entry:
    """The inverse of `entry_to_json`."""
    content = {key: found for key, found in value.items() if key != "kind"}
    return StartOver.from_json(content) if value["kind"] == "start_over" else Look.from_json(content)


def counted(entries: Sequence[Entry]) -> tuple[Look, ...]:
    """The looks that count: those since the last start-over, oldest first."""
    found: list[Look] = []
    for entry in entries:
        if isinstance(entry, Look):
            found.append(entry)
        else:
            found.clear()
    return tuple(found)


def last_start(entries: Sequence[Entry]) -> StartOver | None:
    """The latest start-over; None where nobody ever did."""
    return next((entry for entry in reversed(entries) if isinstance(entry, StartOver)), None)


def with_look(entries: Sequence[Entry], look: Look) -> tuple[Entry, ...]:
    """The log with a look that was taken; as it was where it says so already.

    The same comparison judged by other gates is written down, too: it spends nothing, but another verdict may stand.
    """
    same = [other for other in counted(entries) if other.repeats(look)]
    if same and same[-1].timeless() == look.timeless():
        return tuple(entries)
    return (*entries, look)


def with_start_over(entries: Sequence[Entry], start: StartOver, workload: str) -> tuple[Entry, ...]:
    """The log with a person's start-over. StartOverRefused without name or reason, or where nothing was spent since."""
    where = f"workload '{workload}'"
    for option, value in (("--who", start.who), ("--why", start.why)):
        if not value.strip():
            raise StartOverRefused(f"{where}: starting over needs {option}: whoever reads a later decision must know.")
    if not counted(entries):
        raise StartOverRefused(f"{where}: no look was taken{' since' if entries else ' yet'}; alpha is whole.")
    return (*entries, start)


def spent(looks: Sequence[Look]) -> float:
    """How much of alpha these looks spent together.

    One comparison under one schedule counts once, at the highest level it was judged at. Decisions at the full alpha (no
    looks registered) spent it: looking first and registering afterwards does not undo that.
    """
    levels: dict[object, float] = {}
    for look in looks:
        what = (look.comparison, look.schedule)
        levels[what] = max(look.alpha, levels.get(what, 0.0))
    # Without the dust of binary fractions, which would read as more than alpha.
    return round(math.fsum(levels.values()), 15)


@dataclass(frozen=True, slots=True)
class Due:
    """The look that may be taken now, and the level it is taken at."""

    number: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """No look may be taken now; the next is at `next_rows` eval rows (None: nothing is left of alpha). `last` is what
    stands."""

    next_rows: int | None
    last: Look | None


def spent_by(registered: Sequence[int], alpha: float) -> tuple[float, ...]:
    """How much of alpha is spent up to and with each look: 2 (1 - Phi(z / sqrt(t))), t the share of the last look's rows."""
    z = float(special.ndtri(1 - alpha / 2))
    return tuple(2.0 * float(special.ndtr(-z / math.sqrt(rows / registered[-1]))) for rows in registered)


def schedule_of(registered: Sequence[int], exam: Mapping[str, Any]) -> tuple[int, ...]:
    """The eval-row counts at which a workload is looked at: those registered in flywheel.yaml, or where there are none those
    fixed with its exam (`core.datasets.exam.Exam` as JSON; empty where none was recorded)."""
    return tuple(registered) or tuple(exam.get("looks", ()))


def next_look(
    registered: Sequence[int], taken: Sequence[Look], *, alpha: float, rows: int, comparison: str
) -> Due | Waiting:
    """Which look a comparison of `rows` eval rows is. `taken` are the looks that count (`counted`), oldest first.

    Judging the same comparison again (another gate) is no new look. Where looks were never registered every decision is
    taken at the full alpha; taking a schedule out gives nothing back. A look that was passed over leaves its alpha to the
    next. A new schedule, or another alpha, spends what is left: of that, each look gets the share that the spending function
    gives it of what was still to spend.
    """
    if not registered and not any(look.registered for look in taken):
        seen = dict.fromkeys(look.comparison for look in taken)
        return Due(len(seen) + (comparison not in seen), alpha)
    here = [look for look in taken if look.schedule == (tuple(registered), alpha)]
    own = [look for look in here if look.comparison == comparison]
    if own:
        return Due(own[-1].number, max(look.alpha for look in own))
    last = taken[-1] if taken else None
    left = alpha - spent(taken)
    if left <= NOTHING:
        return Waiting(None, last)
    if not registered:
        return Due(len(dict.fromkeys(look.comparison for look in taken)) + 1, left)
    done = max((look.number for look in here), default=0)
    reached = sum(count <= rows for count in registered)
    upcoming = max(reached, done)
    waiting = Waiting(registered[upcoming] if upcoming < len(registered) else None, last)
    if reached <= done:
        return waiting
    curve = (0.0, *spent_by(registered, alpha))
    level = left * (curve[reached] - curve[done]) / (curve[-1] - curve[done])
    # Judged at no level at all nothing could pass: such a look is passed over.
    return Due(reached, level) if level > NOTHING else waiting
