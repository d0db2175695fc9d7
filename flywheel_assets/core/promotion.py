"""Promotion: what people did with the decisions of a workload, and what follows from it.

What belongs here: approving, rejecting and rolling back as a history that is only ever appended to, and what serves a
workload by it. What does not: where the history lies (`resources.promotions`) and whether a decision deserves it
(`core.decisions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from flywheel_assets.core.rows import Json

TEACHER = "the teacher"


class PromotionRefused(ValueError):
    """An act that would make no sense; the message says why and what to do instead."""


class Action(StrEnum):
    """What a person may do with a decision."""

    APPROVE = "approve"
    REJECT = "reject"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing a person did: who, when (ISO 8601, UTC) and why, and about which version of the decision.

    `id` makes it repeatable: the same act told twice is one. `candidate`, `variant` and `adapter_version` are the model that
    was approved, rejected or taken back; the adapter is None for variants without one.
    """

    id: str
    action: Action
    workload: str
    decision: str
    candidate: str
    variant: str
    adapter_version: str | None
    who: str
    why: str
    time: str

    @property
    def model(self) -> str:
        """How a person names what it is about."""
        return f"{self.candidate} ({self.variant})"

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return {**asdict(self), "action": self.action.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Act:
        """The inverse of `to_json`."""
        return cls(**{**value, "action": Action(value["action"])})


def serving(acts: Sequence[Act]) -> Act | None:
    """The approval by which a small model serves the workload now; None where the teacher does.

    A roll-back takes the latest approval back, so that the one before it is in force again.
    """
    in_force = _in_force(acts)
    return in_force[-1] if in_force else None


def standing(acts: Sequence[Act], decision: str) -> Act | None:
    """The latest act about one version of the decision; None while nobody has looked at it."""
    return next((act for act in reversed(acts) if act.decision == decision), None)


def is_approved(acts: Sequence[Act], decision: str) -> bool:
    """Whether a version of the decision is approved, and was not taken back since."""
    latest = standing(acts, decision)
    return latest is not None and latest.action is Action.APPROVE


def checked(acts: Sequence[Act], act: Act) -> Act | None:
    """The act as it should be appended, or None where it is told a second time.

    Raises PromotionRefused for approving or rejecting what is already, for rejecting what serves, for no reason or no name.
    """
    if any(earlier.id == act.id for earlier in acts):
        return None
    where = f"workload '{act.workload}'"
    for name, value in (("who", act.who), ("why", act.why)):
        if not value.strip():
            raise PromotionRefused(f"{where}: `{name}` is empty. Whoever reads this later will want to know.")
    latest = standing(acts, act.decision)
    if act.action is Action.ROLLBACK:
        if (current := serving(acts)) is None or current.decision != act.decision:
            raise PromotionRefused(f"{where}: {act.model} of decision {act.decision} does not serve it now.")
        return act
    if latest is not None and latest.action is act.action:
        done = "approved" if act.action is Action.APPROVE else "rejected"
        raise PromotionRefused(
            f"{where}: decision {act.decision} was {done} by {latest.who} on {latest.time} already ({latest.why})."
        )
    if act.action is Action.REJECT and latest is not None and latest.action is Action.APPROVE:
        raise PromotionRefused(
            f"{where}: {act.model} was approved by {latest.who} on {latest.time}. Take it back with `flywheel rollback`."
        )
    return act


def _in_force(acts: Sequence[Act]) -> list[Act]:
    approved: list[Act] = []
    for act in acts:
        if act.action is Action.APPROVE:
            approved.append(act)
        elif act.action is Action.ROLLBACK and approved:
            approved.pop()
    return approved
