"""Parallel: the same small request for many things, a few at once, until the time is up.

Daemon threads and no executor: Python waits at exit for an executor's threads, and with them for a server that hangs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from flywheel_assets.resources.telemetry.langfuse.service import TIME_WAS_UP, NotTold

_T = TypeVar("_T")

# A server of one's own answers in milliseconds, the cloud in tenths of a second; more would look like an attack.
_AT_ONCE = 8


def each(things: Sequence[_T], tell: Callable[[_T], None], *, until: float) -> tuple[list[_T], str]:
    """The things that were told before `until` (monotonic seconds), and why the others were not.

    The first refusal ends it: what one request of a kind is refused for, the others are refused for as well.
    """
    waiting: queue.SimpleQueue[_T] = queue.SimpleQueue()
    for thing in things:
        waiting.put(thing)
    told: list[_T] = []
    trouble: list[str] = []

    def work() -> None:
        while not trouble and time.monotonic() < until:
            try:
                thing = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                tell(thing)
            except NotTold as error:
                trouble.append(str(error))
            else:
                told.append(thing)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(things)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    done = list(told)
    return done, trouble[0] if trouble else "" if len(done) == len(things) else TIME_WAS_UP
