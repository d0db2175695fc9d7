"""Where a reading of Langfuse stands, as the text of a cursor.

A sweep reads one window of generations, newest first, and then the traces whose scores came late. Langfuse has no filter by
arrival, so the next window begins `overlap` before the last one ended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import orjson

from flywheel_assets.resources.sources.base import SourceError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Place:
    """One place in a sweep; times are epoch seconds.

    The window is `[start, end)`; `end` is None before the sweep has begun. `page` is Langfuse's cursor of the next page,
    None for the first; once `late` is known, it is a page of the first trace in it. `late` are the traces to read again once
    the window is read, None before. `applied` are digests of the scores that records carry already. Nothing is asked before
    `wait_until`.
    """

    start: float
    end: float | None = None
    page: str | None = None
    late: tuple[str, ...] | None = None
    applied: tuple[str, ...] = ()
    wait_until: float | None = None

    def text(self) -> str:
        """The cursor."""
        return orjson.dumps({"v": _VERSION, **asdict(self)}).decode()

    def waiting(self, until: float) -> Place:
        """The same place, not to be continued before `until`."""
        return replace(self, wait_until=until)


def place_of(cursor: str) -> Place:
    """The place a cursor stands for. Raises SourceError for text that is no cursor of ours."""
    try:
        content = orjson.loads(cursor)
        if content.pop("v") != _VERSION:
            raise ValueError("another version")
        late = content.pop("late")
        applied = tuple(content.pop("applied"))
        return Place(**content, late=None if late is None else tuple(late), applied=applied)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"Langfuse: the cursor cannot be read ({error}). Reset it (`flywheel pull --again`, or the sensor's cursor): "
            "everything is read again, and nothing is stored twice."
        ) from error
