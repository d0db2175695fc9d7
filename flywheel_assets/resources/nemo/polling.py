"""Polling: how often one looks at something that takes its time, and how patiently a request is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

# One request a second and job at most: a cluster with a hundred jobs must not be busy answering how they are.
SHORTEST_S = 1.0
_GROWTH = 1.4
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
# A server that asks for more than this is not obeyed: the run would look dead.
LONGEST_OBEYED_S = 60.0


def looks(longest_s: float) -> Iterator[float]:
    """Looks at one job, with the seconds since the first: at once, then every second, then ever less often.

    Sleeps between two looks. A look that took long itself does not shorten the pause: the limit is on requests.
    """
    started = time.monotonic()
    pause = SHORTEST_S
    while True:
        yield time.monotonic() - started
        time.sleep(pause)
        pause = min(pause * _GROWTH, max(longest_s, SHORTEST_S))


def backoff(tries: int, asked_s: float | None) -> float:
    """Seconds before a request is tried again: what the server asked for, else doubling; jitter, or all march in step."""
    if asked_s is not None:
        return min(asked_s, LONGEST_OBEYED_S) * random.uniform(1.0, 1.1)
    return min(_FIRST_PAUSE_S * 2.0**tries, _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)


class Stall:
    """Notices that nothing changes: `note` the state at every look, and ask `for_s`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state: object = None
        self._since = clock()

    def note(self, state: object) -> None:
        """What the job looks like now."""
        if state != self._state:
            self._state, self._since = state, self._clock()

    @property
    def for_s(self) -> float:
        """Seconds since it last looked different."""
        return self._clock() - self._since
