"""The guard: this process never outlives the run that started it, and ends at once when it is told to.

What belongs here: the parent watch and the signals. What does not: saving state on the way out; checkpoints are complete
at every moment, so there is nothing to save.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
# How often the parent is looked for where the kernel does not tell us of its death.
_PARENT_POLL_S = 1.0


def die_with_parent() -> None:
    """On Linux, ask the kernel to kill this process when its parent dies, `kill -9` included."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def watch(expected_parent: int | None, on_end: Callable[[int], None]) -> None:
    """Start the thread that ends this process on SIGINT or SIGTERM, and when its parent is gone.

    `on_end(signal number)` is called first, in that thread, to leave a message behind. A thread and not a plain handler:
    a handler waits for the main thread, which may sit for many seconds in an import or a matrix product, and a library may
    swallow the KeyboardInterrupt. `expected_parent` covers a parent that died before `die_with_parent`.
    """
    parent = os.getppid()
    if expected_parent is not None and parent != expected_parent:
        _leave(signal.SIGKILL)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def look() -> None:
        while True:
            ready, _, _ = select.select([receiver], [], [], _PARENT_POLL_S)
            if os.getppid() != parent:
                _leave(signal.SIGKILL)
            if ready:
                for number in receiver.recv(64):
                    if number in (signal.SIGINT, signal.SIGTERM):
                        try:
                            on_end(number)
                        finally:
                            _leave(number)

    # The sender must live as long as the thread: a collected socket would close the descriptor the signals go to.
    threading.Thread(target=look, name="guard", daemon=True, args=()).start()
    _keep.extend((receiver, sender))


_keep: list[socket.socket] = []


def _leave(number: int) -> NoReturn:
    """End this process now, with the shell's exit code for a signal; nothing is flushed or joined."""
    os._exit(128 + number)
