"""An embedded server, shared by the commands that use it at the same time.

Who uses the server holds a shared lock on a file, and so does the command it turns into; the kernel lets go of it when that
process ends, however it ends. A *keeper* (`keeper`) owns the server and stops it once it gets that lock for itself: the last
user ends the server, and a killed one does too. Nothing is counted, so nothing can be counted wrong.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from flywheel_assets.resources.postgres.home import ServerHome
from flywheel_assets.resources.postgres.url import PostgresError

USER = "flywheel"
# Of the socket's name only. Named everywhere: libpq would take PGPORT of whoever asks.
PORT = 5432
_DATABASE = "postgres"
# Making a database takes 2 to 10 s, recovering one after a kill about as long.
_START_S = 60.0
# A keeper needs these to be the same Python; no key of the person who started it goes into a database's environment.
_KEEPER_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class EmbeddedServer:
    """The server of one folder, running or not."""

    def __init__(self, folder: Path) -> None:
        self.home = ServerHome(folder.resolve())

    @property
    def url(self) -> str:
        """For SQLAlchemy, with the password: into an environment, never onto a screen."""
        password = self.home.password_file.read_text(encoding="ascii")
        return f"postgresql+psycopg2://{USER}:{password}@/{_DATABASE}?host={quote(str(self.home.socket_folder))}&port={PORT}"

    def hold(self) -> int:
        """Have the server running until the returned file descriptor is closed. Raises `PostgresError`.

        While the last keeper is stopping its server this waits for that, and starts a new one.
        """
        self.home.make_folders()
        lease = _locked(self.home.folder / "users.lock", fcntl.LOCK_SH)
        try:
            door = _locked(self.home.folder / "door.lock", fcntl.LOCK_EX)
            try:
                self._have_password()
                if self._refusal() is not None:
                    self._start()
            finally:
                os.close(door)
        except BaseException:
            os.close(lease)
            raise
        return lease

    def _have_password(self) -> None:
        path = self.home.password_file
        if path.exists():
            return
        if self.home.data.exists():
            raise PostgresError(
                f"{path} is gone, and without it {self.home.data} cannot be opened. Put it back, or remove both"
            )
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(24))
        draft.rename(path)

    def _start(self) -> None:
        keeper = self._keeper()
        deadline = time.monotonic() + _START_S
        while (refusal := self._refusal()) is not None:
            ended = keeper.poll()
            if ended or time.monotonic() > deadline:
                words = self._last_words() or refusal
                raise PostgresError(f"the PostgreSQL server did not start ({self.home.log_file}): {words}")
            time.sleep(0.1)
            if ended == 0:
                # Another one keeps the folder: it is still starting its server, or on its way out.
                keeper = self._keeper()

    def _keeper(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _KEEPER_ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-m", "flywheel_assets.resources.postgres.keeper", str(self.home.folder)]
        with os.fdopen(os.open(self.home.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as log:
            # A session of its own: Ctrl-C at the terminal is for the command, which still has something to write down.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _refusal(self) -> str | None:
        """Why the server does not answer; None when it does."""
        import psycopg2

        try:
            psycopg2.connect(
                user=USER,
                password=self.home.password_file.read_text(encoding="ascii"),
                host=str(self.home.socket_folder),
                port=PORT,
                dbname=_DATABASE,
                connect_timeout=10,
            ).close()
        except psycopg2.OperationalError as error:
            return str(error).strip()
        return None

    def _last_words(self) -> str:
        return " ".join(self.home.log_file.read_text(encoding="utf-8", errors="replace").split("\n")[-4:]).strip()


def _locked(path: Path, how: int) -> int:
    """A descriptor that holds a lock until it is closed; blocks until it has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, how)
    return descriptor
