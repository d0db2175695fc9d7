"""What a format is: something that knows its own values and turns them into records of the log schema."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json


class FormatError(Exception):
    """A value of this format that cannot become a record: the reason, and a detail that says where and what is missing."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@runtime_checkable
class Format(Protocol):
    """One way of writing chat calls down."""

    @property
    def name(self) -> str:
        """How it is asked for on the command line."""

    @property
    def title(self) -> str:
        """How a person calls it."""

    def recognises(self, value: Any) -> bool:
        """Whether a value read from JSON has this format's shape."""

    def records(self, value: Any) -> list[Json]:
        """The records the value holds, in the log schema. Raises FormatError."""
