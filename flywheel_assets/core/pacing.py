"""Pacing: whether a workload's new records start a turn of the flywheel by themselves, or wait.

What belongs here: the rule. What does not: counting records and reading clocks (`resources.pacing`). Only the `reconcile`
sensor is paced: a person who types `flywheel run` means now.

Under steady traffic there is always something new. A turn that started whenever there is would make the datasets for ever
and evaluate nothing; so a turn once begun is finished on the records it began with, and the next one begins when it is
worth its cost, or when the decision would otherwise be older than promised.
"""

from __future__ import annotations

from dataclasses import dataclass

# What makes a turn worth its cost, as a share of the records that the last one read. While traffic flows, as much again: a
# workload that grows for weeks has a handful of early turns, and then those that `max_lag` asks for. Once it has come to
# rest (a file was ingested) nothing more can be waited for, and a tenth may well change the verdict.
WORTH_IT_FLOWING = 1.0
WORTH_IT_AT_REST = 0.1
# A turn may take twice as long as the last one and still be in time; at most half of the promise is held in reserve.
_RESERVE = 2.0
_MOST_RESERVED = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How a workload wants to be paced.

    `min_new_records` None: as many as are worth a turn. `first_records` are needed before there can be a dataset at all.
    """

    min_new_records: int | None
    cooldown_s: float
    max_lag_s: float
    first_records: int = 1


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What came since a workload's last turn.

    `known` are the records which that turn read, `since_s` the seconds since it read them (None: there was no turn),
    `turn_s` how long it then took to its decision (0: not known). `flowing`: more came since the sensor's previous look.
    `decided`: there is a decision.
    """

    new: int
    known: int = 0
    since_s: float | None = None
    turn_s: float = 0.0
    flowing: bool = False
    decided: bool = True


def why_to_wait(pace: Pace, arrivals: Arrivals) -> str | None:
    """Why new records start nothing yet, for people; None where they do. Meant for workloads that have new records."""
    if arrivals.since_s is None:
        needed = max(pace.min_new_records or 1, pace.first_records)
        return f"{arrivals.new:,} new records, {needed:,} are waited for" if arrivals.new < needed else None
    if arrivals.since_s < pace.cooldown_s:
        return f"cooling down for another {_minutes(pace.cooldown_s - arrivals.since_s)}"
    latest_start = pace.max_lag_s - min(_RESERVE * arrivals.turn_s, _MOST_RESERVED * pace.max_lag_s)
    if arrivals.since_s >= latest_start:
        return None
    needed = pace.min_new_records if pace.min_new_records is not None else _worth_it(arrivals)
    if arrivals.new >= needed:
        return None
    longest = _minutes(latest_start - arrivals.since_s)
    return f"{arrivals.new:,} new records, {needed:,} are waited for, at most another {longest}"


def lag_s(pace: Pace) -> float:
    """How old the records behind a decision may be while newer ones wait, in seconds: a longer cool-down is obeyed."""
    return max(pace.max_lag_s, pace.cooldown_s)


def _worth_it(arrivals: Arrivals) -> int:
    # Without a decision every few records may be the ones that lacked.
    share = WORTH_IT_FLOWING if arrivals.flowing and arrivals.decided else WORTH_IT_AT_REST
    return max(1, round(share * arrivals.known))


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"
