"""Losses: what an observer was not told, and the one warning that says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_NOT_TOLD = "was not told"
_LEFT_ALONE = "left alone for now"
_NOT_AFFECTED = "Results are not affected."


@dataclass(frozen=True, slots=True)
class Lost:
    """How many messages, and why. `left_alone`: it was not tried, because of what an earlier run has warned of."""

    observer: str
    messages: int
    why: str
    left_alone: bool = False

    def __str__(self) -> str:
        what = "1 message" if self.messages == 1 else f"{self.messages} messages"
        why = f"{_LEFT_ALONE}: {self.why}" if self.left_alone else self.why
        return f"{self.observer} {_NOT_TOLD} {what} of this run ({why})"


def warning_of(lost: Iterable[Lost]) -> str:
    """The warning of a run."""
    return f"{'; '.join(map(str, lost))}. {_NOT_AFFECTED}"


def is_old_news(message: str) -> bool:
    """Whether a message of a run warns of nothing that an earlier run has not warned of: a terminal need not repeat it."""
    return message.endswith(_NOT_AFFECTED) and 0 < message.count(_NOT_TOLD) == message.count(_LEFT_ALONE)
