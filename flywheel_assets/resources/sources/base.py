"""What every source of traces promises: bounded steps, and a cursor from which the next step goes on.

What belongs here: the `TraceSource` protocol, the plain data it speaks in and its error. What does not: any one source, and
where pulled records go (`collect`).

A source never writes. It gives a step's records and the cursor behind them; the caller stores the records first and keeps
the cursor afterwards. Whoever dies in between asks for the same step again, and the store knows the records already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json


class SourceError(Exception):
    """A source cannot be read, or cannot be made; the message names it, says why and what to do. Nothing was lost."""


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """One record in the log schema, and where a person finds the original: a link, or the name of a place."""

    content: Json
    origin: str = ""


@dataclass(frozen=True, slots=True)
class PulledReject:
    """Something that cannot become a record. `key` tells the same thing again; `excerpt` is shown (160 characters)."""

    key: str
    reason: RejectReason
    detail: str
    excerpt: str = ""
    origin: str = ""
    workload: str | None = None


@dataclass(frozen=True, slots=True)
class Pull:
    """One step.

    `cursor` continues behind it. `done` means that another step now would bring nothing: the source is read up, or asks to
    wait until `resume_at` (epoch seconds). `note` is the end of a sentence about where the reading stands, for people.
    """

    cursor: str
    records: Sequence[PulledRecord] = ()
    rejects: Sequence[PulledReject] = ()
    done: bool = True
    note: str = ""
    resume_at: float | None = None


@runtime_checkable
class TraceSource(Protocol):
    """Somewhere records come from. Its name is lower-case letters, digits and `_`; its sensor is called `<name>_traces`."""

    @property
    def name(self) -> str:
        """The name on the command line and in the sensor's."""

    def pull(self, cursor: str | None, *, deadline: float) -> Pull:
        """The step after `cursor` (None: the first one); harmless to repeat.

        `deadline` is on the clock of `time.monotonic`: no further request is begun after it. Raises SourceError where
        nothing could be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a look at a source found; `advice` is the next step, also where it works but not wholly."""

    ok: bool
    found: str
    advice: str = ""


@runtime_checkable
class CheckedSource(Protocol):
    """A source that can say how it is; `flywheel doctor` asks. Reaches out, never raises, never shows a secret."""

    def check(self) -> SourceStatus:
        """What was found."""
        ...


def title(source: TraceSource) -> str:
    """How a person reads the source's name."""
    return source.name.replace("_", " ").capitalize()
