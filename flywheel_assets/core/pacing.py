"""Pacing: whether a workload's new records are enough, and late enough, to start a turn of the flywheel by themselves.

What belongs here: the rule. What does not: counting records and reading clocks (`resources.pacing`). Only the `reconcile`
sensor is paced: a person who types `flywheel run` means now.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How a workload wants to be paced: records to wait for, and seconds between two turns."""

    min_new_records: int
    cooldown_s: float


def why_to_wait(pace: Pace, new_records: int, since_last_turn_s: float | None) -> str | None:
    """Why new records start nothing yet, for people; None where they do.

    `since_last_turn_s` is None where the workload never had a turn. Meant for workloads that have new records at all.
    """
    if new_records < pace.min_new_records:
        return f"{new_records} new records, {pace.min_new_records} are waited for"
    if since_last_turn_s is not None and since_last_turn_s < pace.cooldown_s:
        minutes = (pace.cooldown_s - since_last_turn_s) / 60
        return f"cooling down for another {max(1, round(minutes))} min"
    return None
