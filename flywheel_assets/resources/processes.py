"""Processes: who owns a run or a draft, and whether that owner is still alive.

A pid alone proves nothing (the kernel hands it out again), so an owner is host, pid and process start time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import psutil

# psutil derives the start time from boot time and clock ticks: two readings may differ by a tick.
_START_TOLERANCE_S = 0.05


class KilledFromOutside(Exception):
    """A child process that a body waited for was killed: it says nothing about what was attempted, which is tried again."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process on one host. `started` is epoch seconds."""

    host: str
    pid: int
    started: float

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this host, which alone can tell whether it lives."""
        return self.host == socket.gethostname()

    def is_dead(self) -> bool:
        """True only when this host can prove it: a process of another host is never declared dead here."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return bool(abs(process.create_time() - self.started) > _START_TOLERANCE_S)
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started:.2f}"

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity:
        """The inverse of `str`."""
        host, pid, started = text.rsplit(":", 2)
        return cls(host, int(pid), float(started))

    @classmethod
    def known(cls, text: str) -> ProcessIdentity | None:
        """`parse` for text that may be anything; None where it names no process."""
        try:
            return cls.parse(text)
        except ValueError:
            return None


# How run workers and their fork server (`run_worker`) know whom to die with: a parent that is gone already cannot be asked.
RUNNER_PID = "FLYWHEEL_RUNNER_PID"
FORK_SERVER_PID = "FLYWHEEL_FORK_SERVER_PID"
# The modules that the fork server imports besides ours, by blanks.
IMPORTED_ONCE = "FLYWHEEL_IMPORTED_ONCE"

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies (Linux).

    `parent_pid` is the parent as it was when this process was started: it may be gone already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent(parent_pid: int, how: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` for programs that are not Python: like `die_with_parent`, with a signal they can end well on.

    The library is opened here and not in the child, where another thread of this process may have held its lock.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask


@cache
def _own_identity(pid: int) -> ProcessIdentity:
    return ProcessIdentity(socket.gethostname(), pid, psutil.Process(pid).create_time())


def this_process() -> ProcessIdentity:
    """The process that asks; cached by pid, so a fork sees itself and not its parent."""
    return _own_identity(os.getpid())
