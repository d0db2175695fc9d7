"""The seam of a format: from one JSON object of a data set to records of the log schema, or the reason why not.

What belongs here: the protocol, the exception a format refuses a row with, and the one for a format that fails. What does
not: which formats there are (`registry`), which one a file is in (`detect`), and the checks that every record passes
whatever it came from (`core.records`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json


class FormatError(Exception):
    """A row that cannot become a record: the reason, and a detail that says where in the row and what was expected."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class FormatBroken(Exception):
    """A format failed where it may only refuse; the message names it and what it said."""


@runtime_checkable
class Format(Protocol):
    """One way in which people write down requests and answers.

    One with `keeps_known = True` beside that never replaces what the trace store knows under a record's id.
    """

    @property
    def name(self) -> str:
        """What `--format` takes."""

    @property
    def title(self) -> str:
        """One line of help."""

    def recognises(self, value: Json) -> bool:
        """Whether this object, by its structure alone, is a row of this format and hardly one of another."""

    def records(self, value: Json) -> list[Json]:
        """The records of a row, without `workload_id`, `client_id`, `timestamp` and `id` where the row does not know them.

        Neither changes `value` nor answers differently another time. Raises FormatError, and nothing else.
        """
