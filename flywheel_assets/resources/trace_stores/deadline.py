"""Deadlines: how long a sensor's tick may wait for a trace store that is somewhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# On `time.monotonic`. Stores that ask a server look at it before they wait or try again.
DEADLINE: ContextVar[float] = ContextVar("trace_store_deadline", default=float("inf"))


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Within it, no request and no retry goes on for longer than `seconds` from now: a long tick is killed."""
    token = DEADLINE.set(min(DEADLINE.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        DEADLINE.reset(token)
