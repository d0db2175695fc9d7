"""Claims: rows of a SQLite file, each with a living process behind it, shared by processes that know nothing of each other.

What belongs here: the file, its transactions, the heartbeat, and when nobody is behind a row any more. What does not: what
is claimed, and whose turn it is (`leases`, `nemo.ledger`).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from flywheel_assets.resources.processes import ProcessIdentity, this_process

_HEARTBEAT_S = 15.0
# Only counts for a process of another host, which cannot be looked at: eight heartbeats missed.
STALE_AFTER_S = 120.0


def is_dead(process: ProcessIdentity, heartbeat: float, now: float) -> bool:
    """Whether nobody is behind a claim any more: proved on its own host, presumed from its silence on another.

    A live process of this host keeps its claim however long it was silent (a laptop asleep, a stopped process): it still has
    its model loaded. `heartbeat` and `now` are epoch seconds.
    """
    if process.host == this_process().host:
        return process.is_dead()
    return now - heartbeat > STALE_AFTER_S


class ClaimFile:
    """A SQLite file that any process may open; `schema` are the statements that make its tables where they are missing."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self.path, self._schema = path, tuple(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One at a time over all processes; what the block did is undone where it raises."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=60.0, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in self._schema:
                    db.execute(statement)
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def beating(self, table: str, row: int) -> Iterator[None]:
        """Renew the `heartbeat` of the row with this `id` while the block runs."""
        stopped = threading.Event()
        heart = threading.Thread(target=self._beat, args=(table, row, stopped), name=f"{table} {row}", daemon=True)
        heart.start()
        try:
            yield
        finally:
            stopped.set()
            heart.join()

    def _beat(self, table: str, row: int, stopped: threading.Event) -> None:
        while not stopped.wait(_HEARTBEAT_S):
            with self.transaction() as db:
                db.execute(f"UPDATE {table} SET heartbeat = ? WHERE id = ?", (time.time(), row))  # Our own table.
