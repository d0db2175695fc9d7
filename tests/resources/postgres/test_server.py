"""An embedded server: the last user ends it, a kill ends it too, and the next user finds what was written."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from flywheel_assets.resources.postgres.home import ServerHome, _open_to_all
from flywheel_assets.resources.postgres.server import USER, EmbeddedServer
from flywheel_assets.resources.postgres.url import URL_ENV, PostgresError
from tests.postgres import REPOSITORY, end_all, execute, kill_all, server_folder, until_stopped, working_for

_SAYS_AND_WAITS = f"import os; print(os.environ['{URL_ENV}'], flush=True); input()"
_SAYS = f"import os; print(os.environ['{URL_ENV}'])"


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "flywheel_assets.postgres", "--folder", str(folder), "--", *words]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != URL_ENV}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A command that uses the server until it is told to go on; and the URL it was given."""
    process = subprocess.Popen(
        command(folder, sys.executable, "-c", _SAYS_AND_WAITS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=folder.parent,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def postmaster(folder: Path) -> psutil.Process:
    (found,) = [process for process in working_for(folder) if "-D" in process.cmdline()]
    return found


def keeper(folder: Path) -> psutil.Process:
    (found,) = [process for process in working_for(folder) if "-D" not in process.cmdline()]
    return found


def test_commands_share_one_server_and_the_last_one_ends_it(folder: Path) -> None:
    first, url = start(folder)
    server = postmaster(folder).pid
    second, same = start(folder)
    assert same == url and postmaster(folder).pid == server
    first.communicate("go\n")
    time.sleep(1)
    assert execute(url, "SELECT 1") == [(1,)], "the second one still uses it, though the first one started it"
    second.communicate("go\n")
    until_stopped(folder)


def test_commands_that_start_at_the_same_moment_start_one_server(folder: Path) -> None:
    commands = [
        subprocess.Popen(command(folder, sys.executable, "-c", _SAYS), stdout=subprocess.PIPE, env=environment())
        for _ in range(4)
    ]
    said = {process.communicate(timeout=120)[0] for process in commands}
    assert len(said) == 1 and all(process.returncode == 0 for process in commands)
    until_stopped(folder)


def test_killing_a_command_ends_its_server_and_keeps_what_was_written(folder: Path) -> None:
    process, url = start(folder)
    execute(url, "CREATE TABLE kept AS SELECT 7 AS seven")
    process.kill()
    process.wait()
    until_stopped(folder)
    process, url = start(folder)
    assert execute(url, "SELECT seven FROM kept") == [(7,)]
    process.communicate("go\n")


def test_killing_everything_at_once_is_recovered_by_the_next_command(folder: Path) -> None:
    process, url = start(folder)
    execute(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    kill_all(folder, process)
    # As in a container: by now the number of the killed server is that of something else.
    pid_file = ServerHome(folder).data / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split("\n")[0], str(os.getpid()), 1))
    process, url = start(folder)
    assert execute(url, "SELECT count(*) FROM kept") == [(1000,)]
    process.communicate("go\n")


def test_a_killed_keeper_takes_its_server_along_and_the_next_command_gets_another(folder: Path) -> None:
    process, _ = start(folder)
    keeper(folder).send_signal(signal.SIGKILL)
    second, url = start(folder)
    assert execute(url, "SELECT 1") == [(1,)]
    for one in (process, second):
        one.communicate("go\n")
    until_stopped(folder)


def test_a_making_that_was_cut_short_is_begun_again(folder: Path) -> None:
    process = subprocess.Popen(command(folder, "true"), env=environment(), text=True)
    while not list(folder.glob("data.draft-*/*")) and process.poll() is None:
        time.sleep(0.01)
    kill_all(folder, process)
    assert not (folder / "data").exists()
    process, url = start(folder)
    assert execute(url, "SELECT 1") == [(1,)]
    process.communicate("go\n")


def test_only_the_password_opens_it_and_the_password_is_written_in_one_place(folder: Path) -> None:
    process, url = start(folder)
    home, server = ServerHome(folder), postmaster(folder)
    password = home.password_file.read_text()
    assert password in url
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(user=USER, host=str(home.socket_folder), dbname="postgres", passfile="/dev/null")
    assert not [found for found in server.net_connections() if found.family.name.startswith("AF_INET")], (
        "a local socket, no port"
    )
    for closed, mode in ((home.password_file, 0o600), (home.socket_folder, 0o700), (home.data, 0o700)):
        assert stat.S_IMODE(closed.stat().st_mode) == mode
    for one in (server, keeper(folder), psutil.Process(process.pid)):
        assert password not in " ".join(one.cmdline())
    for one in (server, keeper(folder)):
        assert password not in " ".join(one.environ().values())
    process.communicate("go\n")
    until_stopped(folder)
    written = [path for path in folder.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert written == [home.password_file]


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_root_gets_a_server_that_does_not_run_as_root_even_where_nobody_else_can_go(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / ".postgres"
    modes = {path: path.stat().st_mode for path in tmp_path.parents}
    try:
        process, url = start(folder)
        assert postmaster(folder).username() == "nobody"
        assert execute(url, "SELECT 1") == [(1,)]
        process.communicate("go\n")
        until_stopped(folder)
        assert {path: path.stat().st_mode for path in tmp_path.parents} == modes, "no folder was opened to others"
    finally:
        end_all(folder)


@pytest.mark.skipif(
    os.geteuid() != 0 or not _open_to_all(Path(sys.executable).resolve()), reason="nobody else can run this Python"
)
def test_an_ordinary_account_runs_its_own_server(folder: Path) -> None:
    place = folder.parent / "theirs"
    place.mkdir()
    os.chown(place, 1, 1)
    ran = subprocess.run(
        command(place / ".postgres", sys.executable, "-c", _SAYS),
        user=1, group=1, extra_groups=[], env=environment(HOME=str(place)), cwd=place, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0 and ran.stdout.startswith("postgresql+psycopg2://"), ran.stderr
    assert (place / ".postgres" / "data").stat().st_uid == 1
    until_stopped(place / ".postgres")


def test_a_path_too_long_for_a_socket_is_no_hindrance(folder: Path) -> None:
    deep = folder.parent / ("long" * 20) / ("path" * 20)
    deep.mkdir(parents=True)
    try:
        process, url = start(deep / ".postgres")
        assert execute(url, "SELECT 1") == [(1,)]
        process.communicate("go\n")
        until_stopped(deep / ".postgres")
    finally:
        end_all(deep / ".postgres")


def test_the_command_takes_over_with_its_exit_code(folder: Path) -> None:
    assert subprocess.run(command(folder, "sh", "-c", "exit 7"), env=environment()).returncode == 7


def test_a_url_that_is_set_is_used_and_no_server_started(folder: Path) -> None:
    ran = subprocess.run(
        command(folder, sys.executable, "-c", _SAYS),
        env=environment(**{URL_ENV: "postgres://u:p@h/d"}),
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "postgresql+psycopg2://u:p@h/d"
    assert not folder.exists()


def test_a_lost_password_is_said_and_nothing_is_thrown_away(folder: Path) -> None:
    os.close(EmbeddedServer(folder).hold())
    until_stopped(folder)
    (folder / "password").unlink()
    with pytest.raises(PostgresError, match=r"password is gone.*Put it back, or remove both"):
        EmbeddedServer(folder).hold()
    assert (folder / "data" / "PG_VERSION").is_file()


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    os.close(EmbeddedServer(folder).hold())
    until_stopped(folder)
    (folder / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(PostgresError, match=r"server\.log.*incompatible"):
        EmbeddedServer(folder).hold()
