"""Leases: who uses how much of something scarce on this machine, across processes.

A budget (GPUs, mostly) is shared by runs that know nothing of each other. Each takes a lease of some weight before it loads
a model, in the order of asking, and gives it back when its block ends. What a dead process held is free again: the table
trusts no process to clean up after itself.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.claims import ClaimFile, is_dead
from flywheel_assets.resources.processes import ProcessIdentity, this_process

_POLL_S = 0.5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    weight INTEGER NOT NULL,
    owner TEXT NOT NULL,
    process TEXT NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    heartbeat REAL NOT NULL
)
"""


class LeaseError(Exception):
    """A lease can never be granted; the message says which key of flywheel.yaml stands in the way."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One claim on a pool: held, or waiting its turn. `heartbeat` is epoch seconds."""

    id: int
    pool: str
    weight: int
    owner: str
    process: ProcessIdentity
    held: bool
    heartbeat: float

    def is_dead(self, now: float) -> bool:
        """Whether nobody is behind it any more, as `claims.is_dead` says."""
        return is_dead(self.process, self.heartbeat, now)


class LeaseTable:
    """The leases of one flywheel home, in a SQLite file that any process may open."""

    def __init__(self, path: Path) -> None:
        self._file = ClaimFile(path, [_SCHEMA])

    @contextmanager
    def acquire(
        self,
        pool: str,
        *,
        weight: int,
        budget: int,
        owner: str,
        announce: Callable[[str], None] | None = None,
    ) -> Iterator[None]:
        """Hold `weight` of a pool of `budget` while the block runs; waits, in the order of asking, until it is free.

        `owner` is the run it is for; `announce` is told once whom it waits for. Weight 0 takes nothing. Raises LeaseError
        when the weight exceeds the whole budget.
        """
        if weight == 0:
            yield
            return
        if weight > budget:
            raise LeaseError(
                f"{owner} needs {weight} of '{pool}', but the whole budget is {budget} (local.{pool}_budget). "
                "Raise it in flywheel.yaml, or lower the candidate's `gpus`."
            )
        lease = self._ask(pool, weight, owner)
        try:
            with self._file.beating("leases", lease):
                self._await_turn(lease, pool, weight, budget, announce)
                yield
        finally:
            with self._file.transaction() as db:
                db.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def leases(self, pool: str | None = None) -> list[Lease]:
        """Every lease, held or waiting, in the order of asking."""
        with self._file.transaction() as db:
            found = _all(db)
        return [lease for lease in found if pool is None or lease.pool == pool]

    def release_dead(self) -> list[Lease]:
        """Free what dead processes held or waited for; returns it."""
        with self._file.transaction() as db:
            return _free_dead(db)

    def _ask(self, pool: str, weight: int, owner: str) -> int:
        with self._file.transaction() as db:
            cursor = db.execute(
                "INSERT INTO leases (pool, weight, owner, process, heartbeat) VALUES (?, ?, ?, ?, ?)",
                (pool, weight, owner, str(this_process()), time.time()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def _await_turn(self, lease: int, pool: str, weight: int, budget: int, announce: Callable[[str], None] | None) -> None:
        told = False
        while True:
            with self._file.transaction() as db:
                _free_dead(db)
                others = [other for other in _all(db) if other.pool == pool and other.id != lease]
                used = sum(other.weight for other in others if other.held)
                ahead = [other for other in others if not other.held and other.id < lease]
                if not ahead and used + weight <= budget:
                    db.execute("UPDATE leases SET held = 1, heartbeat = ? WHERE id = ?", (time.time(), lease))
                    return
            if announce is not None and not told:
                in_the_way = [other for other in others if other.held] + ahead
                whom = ", ".join(f"{other.owner} ({other.weight})" for other in in_the_way)
                announce(f"waiting for {weight} of '{pool}': {used} of {budget} in use or asked for earlier by {whom}")
                told = True
            time.sleep(_POLL_S)


def _all(db: sqlite3.Connection) -> list[Lease]:
    rows = db.execute("SELECT id, pool, weight, owner, process, held, heartbeat FROM leases ORDER BY id")
    return [
        Lease(id_, pool, weight, owner, ProcessIdentity.parse(process), bool(held), heartbeat)
        for id_, pool, weight, owner, process, held, heartbeat in rows
    ]


def _free_dead(db: sqlite3.Connection) -> list[Lease]:
    now = time.time()
    dead = [lease for lease in _all(db) if lease.is_dead(now)]
    db.executemany("DELETE FROM leases WHERE id = ?", [(lease.id,) for lease in dead])
    return dead
