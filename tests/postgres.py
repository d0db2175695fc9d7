"""A real PostgreSQL server for tests, and Dagster instances on it, each in a database of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, suppress
from pathlib import Path
from unittest import mock

import psutil
import psycopg2
from dagster import DagsterInstance
from dagster._core.instance import InstanceRef

from flywheel_assets.resources.postgres.home import ServerHome
from flywheel_assets.resources.postgres.server import EmbeddedServer
from flywheel_assets.resources.postgres.url import URL_ENV

REPOSITORY = Path(__file__).resolve().parents[1]
PROFILE = REPOSITORY / "deploy" / "postgres" / "dagster.yaml"


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for an embedded server that the account it runs as can reach; whatever runs there is ended with the test."""
    with tempfile.TemporaryDirectory(prefix="fw-pg-") as made:
        Path(made).chmod(0o711)
        folder = Path(made) / ".postgres"
        try:
            yield folder
        finally:
            end_all(folder)


def end_all(folder: Path) -> None:
    """Kill what runs for a folder, and remove what it keeps elsewhere."""
    for process in working_for(folder):
        process.kill()
    psutil.wait_procs(working_for(folder), timeout=10)
    shutil.rmtree(ServerHome(folder)._away, ignore_errors=True)


def working_for(folder: Path) -> list[psutil.Process]:
    """The keeper and the postmaster of a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        data = str(ServerHome(folder).data)
        if (str(folder) in command and any("keeper" in word for word in command)) or (data in command and "-D" in command):
            found.append(process)
    return found


def kill_all(folder: Path, *users: subprocess.Popen[str]) -> None:
    """The power cut: keeper, postmaster, everything below it and who uses it, at once."""
    processes = [child for parent in working_for(folder) for child in [parent, *parent.children(recursive=True)]]
    for process in processes:
        # A process that ended with another one meanwhile is what was wanted.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for user in users:
        user.kill()
        user.wait()
    until_stopped(folder)


def until_stopped(folder: Path, seconds: float = 20) -> None:
    """Wait until nothing runs for a folder."""
    deadline = time.monotonic() + seconds
    while left := working_for(folder):
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        time.sleep(0.1)


@contextmanager
def running_server() -> Iterator[str]:
    """The URL of a server that runs for as long as the block."""
    with server_folder() as folder:
        server = EmbeddedServer(folder)
        held = server.hold()
        try:
            yield server.url
        finally:
            os.close(held)
            until_stopped(folder)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """The rows of one statement."""
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def own_database(url: str) -> str:
    """The URL of a new, empty database of the server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(url, f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


@contextmanager
def postgres_instance(folder: Path, url: str) -> Iterator[DagsterInstance]:
    """The instance of deploy/postgres/dagster.yaml, with the paths in it relative to `folder`."""
    home = folder / "dagster-home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(PROFILE.read_text())
    environment = mock.patch.dict(os.environ, {URL_ENV: url})
    with chdir(folder), environment, DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
        yield instance
