"""Pulse: one cheap question that tells whether a store changed at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Pulse:
    """`token` is equal as long as nothing was added or changed; `index` is what was asked."""

    index: str
    token: str


@runtime_checkable
class Pulsing(Protocol):
    """A trace store whose whole state can be compared in one request."""

    def pulse(self) -> Pulse:
        """Where the store stands as a whole."""
        ...
