"""Lane: one observer's background thread during one phase. The work puts messages in and never waits for it.

What it cannot tell within its bounds (queue length, failures in a row, the time for the last flush) is counted as lost.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.telemetry.breaker import Breaker
from flywheel_assets.resources.telemetry.losses import Lost
from flywheel_assets.resources.telemetry.phases import Ended, Observer, Phase, Reading

# More than any phase has to tell; a full queue means that nobody reads it.
QUEUE_LENGTH = 1000
# One failure may be a message that the service does not like; two in a row are a service that is down.
FAILURES_IN_A_ROW = 2
_ERROR_CHARS = 160


class Lane:
    """Messages of one phase for one observer."""

    def __init__(self, name: str, observer: Callable[[], Observer], breaker: Breaker, phase: Phase) -> None:
        self.name = name
        self.link: str | None = None
        self._observer, self._breaker, self._phase = observer, breaker, phase
        self._messages: queue.Queue[Reading | Ended] = queue.Queue(QUEUE_LENGTH)
        self._lost = 0
        self._why = breaker.why_open(name) or ""
        self._left_alone = bool(self._why)
        self._made, self._done = threading.Event(), threading.Event()
        if self._left_alone:
            self._lost = 1
            self._made.set()
            self._done.set()
        else:
            threading.Thread(target=self._tell, name=f"telemetry-{name}", daemon=True).start()

    def put(self, message: Reading | Ended) -> None:
        """Hand over a message; returns at once."""
        if self._left_alone:
            self._lost += 1
            return
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self._lose(f"more than {QUEUE_LENGTH} messages waited")

    def await_made(self, wait_s: float) -> None:
        """Wait at most `wait_s` seconds for the observer itself: what this machine does once a process, not the service."""
        self._made.wait(wait_s)

    def finish(self, ended: Ended, wait_s: float) -> Lost | None:
        """Tell the end, and wait at most `wait_s` seconds until everything is told; what was lost."""
        self.put(ended)
        began = time.monotonic()
        if self._done.wait(wait_s):
            self._breaker.waited(self.name, time.monotonic() - began, ended.at - self._phase.started)
        else:
            waiting = self._messages.qsize() + 1
            self._lose(f"it took longer than {wait_s:g} s", waiting)
            self._breaker.trip(self.name, self._why)
        return Lost(self.name, self._lost, self._why, self._left_alone) if self._lost else None

    def _tell(self) -> None:
        observer = self._begun()
        failures = 0 if observer is not None else FAILURES_IN_A_ROW
        while True:
            message = self._messages.get()
            if observer is None or failures >= FAILURES_IN_A_ROW:
                self._lose(self._why)
            else:
                failures = 0 if self._told(observer, message) else failures + 1
                if failures >= FAILURES_IN_A_ROW:
                    self._breaker.trip(self.name, self._why)
            if isinstance(message, Ended):
                self._done.set()
                return

    def _begun(self) -> Observer | None:
        """The observer, once it knows of the phase; None where it could not be told, and the rest makes no sense."""
        try:
            try:
                observer = self._observer()
            finally:
                self._made.set()
            observer.begin(self._phase)
            self.link = observer.link(self._phase)
        except Exception as error:  # noqa: BLE001  # Telemetry never fails a run, whatever a client throws.
            self._lose(_said(error))
            self._breaker.trip(self.name, self._why)
            return None
        return observer

    def _told(self, observer: Observer, message: Reading | Ended) -> bool:
        try:
            if isinstance(message, Ended):
                observer.end(self._phase, message)
            else:
                observer.reading(self._phase, message)
        except Exception as error:  # noqa: BLE001  # As above.
            self._lose(_said(error))
            return False
        return True

    def _lose(self, why: str, messages: int = 1) -> None:
        self._lost += messages
        self._why = self._why or why


def _said(error: Exception) -> str:
    """The error in one short line, without the user and password that a URL in it may hold."""
    lines = without_credentials(str(error)).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return said if len(said) <= _ERROR_CHARS else said[:_ERROR_CHARS] + " ..."
