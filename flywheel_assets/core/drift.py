"""Drift: whether what a workload sends now is still what its current decision was made on.

What belongs here: comparing two profiles. What does not: making a profile (`datasets.profile`), and finding the one behind
a decision (`assets.datasets`).

The measure is the population stability index, PSI = sum (a - e) ln(a / e) over the shares of each category (Siddiqi,
"Credit Risk Scorecards", 2006: below 0.1 stable, above 0.25 another population). Small samples reach 0.25 by chance: under
no drift PSI is about chi-square with k - 1 degrees of freedom times (1/n + 1/m) (Yurdakul, "Statistical Properties of
Population Stability Index", 2018), so the threshold is never below what chance gives once in 20 times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from scipy.stats import chi2

from flywheel_assets.core.rows import Json

ANOTHER_POPULATION = 0.25
CHANCE = 0.05
# Categories with fewer rows than this, in both populations together, are pooled: a ratio of two tiny shares means nothing.
POOLED_BELOW = 10
# Fewer new records than this say nothing about a population.
MIN_NEW_RECORDS = 30
_OTHER = "(other)"
# The check is made early in a turn: at its end there is mostly a newer decision, made on the same records.
_SINCE = "records since the decision that stood when this turn began"


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one distribution moved: its PSI, the threshold in force, and the shares (0..1) then and now by category."""

    psi: float
    threshold: float
    then: dict[str, float]
    now: dict[str, float]

    @property
    def drifted(self) -> bool:
        """Whether this is another population."""
        return self.psi > self.threshold


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed since a decision was made.

    `new_records` came since; `shifts` holds `tools`, `classes` and `lengths`, and is empty where there are too few of
    them. Tools are compared by name and by a hash of their definition.
    """

    new_records: int
    shifts: dict[str, Shift]
    new_tools: tuple[str, ...]
    changed_tools: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        """Whether the decision should be made again on what is sent now."""
        return bool(self.new_tools or self.changed_tools) or any(shift.drifted for shift in self.shifts.values())

    def summary(self) -> str:
        """One sentence for people."""
        parts = [
            f"{name} moved (PSI {shift.psi:.2f}, threshold {shift.threshold:.2f})"
            for name, shift in self.shifts.items()
            if shift.drifted
        ]
        parts += [f"new tools: {_named(self.new_tools)}"] if self.new_tools else []
        parts += [f"changed tools: {_named(self.changed_tools)}"] if self.changed_tools else []
        if parts:
            return f"{self.new_records} {_SINCE}: {'; '.join(parts)}."
        if not self.shifts:
            return f"{self.new_records} {_SINCE}; {MIN_NEW_RECORDS} are needed to say anything."
        return f"{self.new_records} {_SINCE}, distributed as before."

    def to_json(self) -> Json:
        """JSON-ready."""
        return {**asdict(self), "drifted": self.drifted}


def drift_between(then: Json, now: Json) -> Drift:
    """Compare the profile behind a decision with today's (both as `WorkloadProfile.to_json`).

    Profiles count all records of a workload, so what is compared with `then` is the difference: the records since. Only
    what may be examined on counts: a data set that is imported to train on says nothing about what is sent.
    """
    then, now = then["examinable"], now["examinable"]
    since = {name: _difference(_counts(then, name), _counts(now, name)) for name in ("tools", "classes", "lengths")}
    new_records = sum(since["lengths"].values())
    shifts: dict[str, Shift] = {}
    if new_records >= MIN_NEW_RECORDS:
        for name, counts in since.items():
            if (shift := shift_between(_counts(then, name), counts)) is not None:
                shifts[name] = shift
    before = {tool["name"]: set(tool["schemas"]) for tool in then["tools"]}
    after = {tool["name"]: set(tool["schemas"]) for tool in now["tools"]}
    # A profile shows the most offered tools only: beyond them, unseen is not new.
    complete = len(before) == then["distinct_tools"]
    return Drift(
        new_records=new_records,
        shifts=shifts,
        new_tools=tuple(sorted(set(after) - set(before))) if complete else (),
        changed_tools=tuple(sorted(name for name, schemas in after.items() if name in before and schemas - before[name])),
    )


def shift_between(then: Mapping[str, int], now: Mapping[str, int]) -> Shift | None:
    """The shift from one distribution to another (counts by category); None where there is nothing to compare."""
    n, m = sum(then.values()), sum(now.values())
    if not n or not m:
        return None
    pooled_then, pooled_now = _pooled(then, now)
    categories = len(pooled_then)
    if categories < 2:
        return None
    # Half a row added to each category keeps the logarithm finite where a category is empty on one side.
    expected = {name: (count + 0.5) / (n + 0.5 * categories) for name, count in pooled_then.items()}
    actual = {name: (count + 0.5) / (m + 0.5 * categories) for name, count in pooled_now.items()}
    psi = sum((actual[name] - expected[name]) * math.log(actual[name] / expected[name]) for name in expected)
    by_chance = float(chi2.ppf(1 - CHANCE, categories - 1)) * (1 / n + 1 / m)
    return Shift(psi, max(ANOTHER_POPULATION, by_chance), expected, actual)


def _pooled(then: Mapping[str, int], now: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    first: dict[str, int] = {}
    second: dict[str, int] = {}
    for name in sorted({*then, *now}):
        a, b = then.get(name, 0), now.get(name, 0)
        kept = name if a + b >= POOLED_BELOW else _OTHER
        first[kept] = first.get(kept, 0) + a
        second[kept] = second.get(kept, 0) + b
    return first, second


def _counts(profile: Json, name: str) -> dict[str, int]:
    """A distribution of a population: calls by tool, records by class, records by length of request."""
    if name == "tools":
        return {tool["name"]: tool["calls"] for tool in profile["tools"] if tool["calls"]}
    if name == "classes":
        return {kind: profile[f"{kind}_records"] for kind in ("call", "no_call", "text") if profile[f"{kind}_records"]}
    histogram: dict[str, int] = profile["request_histogram"]
    return histogram


def _difference(then: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    # Records that were replaced since may lower a count: no category is ever below none.
    return {name: count - then.get(name, 0) for name, count in now.items() if count > then.get(name, 0)}


def _named(tools: tuple[str, ...]) -> str:
    return ", ".join(tools[:5]) + (f" and {len(tools) - 5} more" if len(tools) > 5 else "")
