"""The ledger: what the flywheel has running in a cluster, which runs use it, and what share of the GPU budget it takes.

A *thing* is a deployment or a job. It is written down before it is asked for, so that a kill between the two loses
nothing. A run that uses it has a *hold*, renewed while it lives; several runs share one thing, and its weight counts once.
Who let go last ends the thing, which is the caller's business: the ledger knows nothing of NeMo.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.claims import ClaimFile, is_dead
from flywheel_assets.resources.leases import LeaseError
from flywheel_assets.resources.processes import ProcessIdentity, this_process

_POLL_S = 0.5
_THINGS = """
CREATE TABLE IF NOT EXISTS things (
    kind TEXT NOT NULL, name TEXT NOT NULL, remote TEXT NOT NULL DEFAULT '', idle_since REAL NOT NULL,
    PRIMARY KEY (kind, name)
)
"""
_HOLDS = """
CREATE TABLE IF NOT EXISTS holds (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, weight INTEGER NOT NULL,
    owner TEXT NOT NULL, process TEXT NOT NULL, held INTEGER NOT NULL, heartbeat REAL NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of ours in the cluster: its name here, and there (empty until known). `idle_since`: epoch seconds."""

    kind: str
    name: str
    remote: str
    idle_since: float


@dataclass(frozen=True, slots=True)
class _Hold:
    id: int
    kind: str
    name: str
    weight: int
    owner: str
    process: ProcessIdentity
    held: bool
    heartbeat: float


class Ledger:
    """The ledger of one flywheel home, in a SQLite file that any process may open."""

    def __init__(self, path: Path) -> None:
        self._file = ClaimFile(path, [_THINGS, _HOLDS])

    @contextmanager
    def using(
        self,
        kind: str,
        name: str,
        *,
        owner: str,
        weight: int = 0,
        budget: int = 0,
        announce: Callable[[str], None] | None = None,
    ) -> Iterator[None]:
        """Hold a thing while the block runs; waits, in the order of asking, until its weight fits the budget.

        A thing somebody holds already costs nothing more. `owner` is the run it is for. Raises LeaseError when the weight
        exceeds the whole budget.
        """
        if weight > budget:
            raise LeaseError(
                f"{name} needs {weight} GPUs, but the whole budget is {budget} (nemo.gpu_budget). "
                "Raise it in flywheel.yaml, or lower `gpus` of the NIM."
            )
        with self._file.transaction() as db:
            cursor = db.execute(
                "INSERT INTO holds (kind, name, weight, owner, process, held, heartbeat) VALUES (?, ?, ?, ?, ?, 0, ?)",
                (kind, name, weight, owner, str(this_process()), time.time()),
            )
            hold = cursor.lastrowid
        assert hold is not None
        try:
            with self._file.beating("holds", hold):
                self._await_turn(hold, kind, name, weight, budget, announce)
                yield
        finally:
            with self._file.transaction() as db:
                db.execute("DELETE FROM holds WHERE id = ?", (hold,))
                db.execute("UPDATE things SET idle_since = ? WHERE kind = ? AND name = ?", (time.time(), kind, name))

    def holders(self, kind: str, name: str) -> list[str]:
        """Runs that hold a thing now, dead ones left out."""
        with self._file.transaction() as db:
            return [hold.owner for hold in _living(db) if (hold.kind, hold.name) == (kind, name) and hold.held]

    def note(self, kind: str, name: str, remote: str = "") -> None:
        """Write down that a thing is about to be made here, or what its name there is."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO things (kind, name, remote, idle_since) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (kind, name) DO UPDATE SET remote = excluded.remote",
                (kind, name, remote, time.time()),
            )

    def forget(self, kind: str, name: str) -> None:
        """A thing is gone."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM things WHERE kind = ? AND name = ?", (kind, name))

    def thing(self, kind: str, name: str) -> Thing | None:
        """A thing that was written down, or None."""
        return next((thing for thing in self.things() if (thing.kind, thing.name) == (kind, name)), None)

    def things(self) -> list[Thing]:
        """Everything that was written down and not yet ended."""
        with self._file.transaction() as db:
            return [
                Thing(*row) for row in db.execute("SELECT kind, name, remote, idle_since FROM things ORDER BY kind, name")
            ]

    def idle(self) -> list[tuple[Thing, float]]:
        """Things that no living run holds, each with the seconds since one did."""
        now = time.time()
        with self._file.transaction() as db:
            used = {(hold.kind, hold.name) for hold in _living(db)}
            rows = db.execute("SELECT kind, name, remote, idle_since FROM things ORDER BY kind, name").fetchall()
        return [(thing, now - thing.idle_since) for thing in (Thing(*row) for row in rows) if _key(thing) not in used]

    def _await_turn(
        self, hold: int, kind: str, name: str, weight: int, budget: int, announce: Callable[[str], None] | None
    ) -> None:
        told = False
        while True:
            with self._file.transaction() as db:
                others = [other for other in _living(db) if other.id != hold]
                granted = {(other.kind, other.name): other.weight for other in others if other.held}
                ahead = [other for other in others if not other.held and other.id < hold and other.weight]
                used = sum(granted.values())
                shared = (kind, name) in granted
                if weight == 0 or shared or (not ahead and used + weight <= budget):
                    db.execute("UPDATE holds SET held = 1, heartbeat = ? WHERE id = ?", (time.time(), hold))
                    return
            if announce is not None and not told:
                whom = ", ".join(sorted({other.name for other in others if other.held and other.weight}))
                announce(
                    f"{name}: waiting for {weight} GPUs; {used} of {budget} are used by {whom or 'runs that asked earlier'}"
                )
                told = True
            time.sleep(_POLL_S)


def _key(thing: Thing) -> tuple[str, str]:
    return thing.kind, thing.name


def _living(db: sqlite3.Connection) -> list[_Hold]:
    """Every hold, after those of dead processes were taken away; what they held is idle from their last heartbeat on."""
    rows = db.execute("SELECT id, kind, name, weight, owner, process, held, heartbeat FROM holds ORDER BY id")
    holds = [
        _Hold(id_, kind, name, weight, owner, ProcessIdentity.parse(process), bool(held), heartbeat)
        for id_, kind, name, weight, owner, process, held, heartbeat in rows
    ]
    now = time.time()
    gone = [hold for hold in holds if is_dead(hold.process, hold.heartbeat, now)]
    for dead in gone:
        db.execute("DELETE FROM holds WHERE id = ?", (dead.id,))
        db.execute("UPDATE things SET idle_since = ? WHERE kind = ? AND name = ?", (dead.heartbeat, dead.kind, dead.name))
    return [hold for hold in holds if hold not in gone]
