"""The SQLite file under the local trace store: opening, creating, write transactions, errors in words.

What belongs here: everything that is about the file and its locks. What does not: what the tables mean (`local`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel_assets.resources.trace_stores.base import TraceStoreBusy, TraceStoreCorrupt, TraceStoreError

# Ids come in random order, so one commit touches about one page of their index a record: small pages keep that cheap, and
# a long write-ahead log (64 MB here) lets the same page reach the file once for many commits.
_PAGE_BYTES = 8192
_CHECKPOINT_PAGES = 8000
_CACHE_KIB = 65_536


class SqliteFile:
    """One SQLite file with our tables, shared by threads, reopened after a fork or when the file was replaced.

    `tables` are the statements that create it; `application_id` and `version` mark it as ours. `busy_timeout_s` bounds
    the wait for another writer.
    """

    def __init__(
        self, path: Path, *, tables: tuple[str, ...], application_id: int, version: int, busy_timeout_s: float
    ) -> None:
        self.path = path
        self._tables = tables
        self._application_id = application_id
        self._version = version
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened_as: tuple[int, int, int] | None = None
        # SQLite forbids closing in a child what the parent opened: such connections are kept, unused.
        self._inherited: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Give back the connection; the next call opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            if self._opened_as is not None and self._opened_as[0] == os.getpid():
                connection.close()
            else:
                self._inherited.append(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, rolled back by any exception."""
        with self._lock, self.explained("write to"):
            db = self._open(create=True)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection for single reads; None where the file does not exist yet."""
        with self._lock, self.explained("read"):
            yield self._open(create=False) if self.path.exists() else None

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own: a cursor left open on it sees one state of the file, whoever writes meanwhile."""
        with self.explained("read"):
            db = self._connect(create=False)
            try:
                yield db
            finally:
                db.close()

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """SQLite's errors, in terms of what the reader must do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise TraceStoreBusy(
                    f"cannot {doing} the trace store {self.path}: another process held it for {self._busy_timeout_s:g} s."
                    f" Wait for that process (`fuser {self.path}` names it), then run this again."
                ) from error
            raise TraceStoreError(
                f"cannot {doing} the trace store {self.path}: {error}."
                " Check that the folder is writable and the disk not full."
            ) from error
        except sqlite3.DatabaseError as error:
            raise TraceStoreCorrupt(
                f"the trace store {self.path} is damaged or no SQLite file ({error})."
                " Move it away together with its -wal and -shm files, then ingest the logs again."
            ) from error

    def _open(self, *, create: bool) -> sqlite3.Connection:
        """The shared connection. Another process id, or another file under the path, makes the old one worthless."""
        if self._connection is not None and self._opened_as != self._identity():
            self.close()
        if self._connection is None:
            self._connection = self._connect(create=create)
            self._opened_as = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return os.getpid(), status.st_dev, status.st_ino

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        if create:
            # Records are kept as they came, before anything is scrubbed: for nobody else's eyes, whatever the umask. SQLite
            # gives the files it puts beside this one the same mode.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = "rwc" if create else "rw"
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if scalar(db, "PRAGMA user_version") == 0 and scalar(db, "SELECT count(*) FROM sqlite_master") == 0:
            self._create(db)
        application, version = scalar(db, "PRAGMA application_id"), scalar(db, "PRAGMA user_version")
        if application != self._application_id:
            raise TraceStoreCorrupt(f"{self.path} is an SQLite file but no trace store. Point FLYWHEEL_HOME elsewhere.")
        if version != self._version:
            raise TraceStoreCorrupt(
                f"{self.path} has schema {version}, this version reads {self._version}. Use the version that wrote it."
            )
        # NORMAL: a killed process loses nothing; a power cut may lose the last commits, never the file's integrity.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")

    def _create(self, db: sqlite3.Connection) -> None:
        """Create the tables, unless another process is faster."""
        self._enter_wal(db)
        db.execute("BEGIN IMMEDIATE")
        if scalar(db, "PRAGMA user_version") == 0:
            for statement in self._tables:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {self._application_id}")
            db.execute(f"PRAGMA user_version = {self._version}")
        db.execute("COMMIT")

    def _enter_wal(self, db: sqlite3.Connection) -> None:
        """Switch to write-ahead logging. SQLite does not wait for that lock itself, so first writers wait here."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def scalar(db: sqlite3.Connection, query: str, values: tuple[object, ...] = ()) -> int:
    """The one number a query answers with."""
    value: int = db.execute(query, values).fetchone()[0]
    return value


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
