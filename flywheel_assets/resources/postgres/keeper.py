"""The keeper of an embedded server: starts it, waits until nobody uses it, stops it.

A program of its own (`python -m flywheel_assets.resources.postgres.keeper FOLDER`), started by `server`, because no user may
be the owner: the one who started the server can end before the others do. If the keeper is killed, the kernel ends the
server; if both are, the next keeper clears up, and PostgreSQL recovers its data.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from flywheel_assets.resources.postgres.home import ServerHome
from flywheel_assets.resources.postgres.server import PORT, USER
from flywheel_assets.resources.processes import end_with_parent

_LOOK_S = 0.3
# A fast shutdown writes a checkpoint, which may take its time on a slow disk.
_STOP_S = 60.0
# The signal of a *fast* shutdown: clients are sent away, data is written.
_FAST = signal.SIGINT


def main(folder: Path) -> int:
    """Keep the server of a folder until it ends or nobody uses it; 0 when that is how it went."""
    home = ServerHome(folder)
    own = os.open(home.folder / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _lock_now(own):
        return 0  # Another one keeps it; whoever asked for this one sees it answer.
    with suppress(OSError):  # Not a file, where somebody starts it by hand.
        os.ftruncate(sys.stdout.fileno(), 0)
    _clear_up(home)
    _have_database(home)
    server = _start(home)
    users = os.open(home.folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    while server.poll() is None:
        if _lock_now(users):
            return _stop(server)
        time.sleep(_LOOK_S)
    return 1


def _lock_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_up(home: ServerHome) -> None:
    """End what a killed keeper left running, and forget what a killed server left written.

    PostgreSQL takes its postmaster.pid for a running server's if *any* process has that number by now, as in a container
    where every start hands out the same ones.
    """
    for process in psutil.process_iter(["name", "cmdline"]):
        command = process.info["cmdline"] or []
        if process.info["name"] == "postgres" and str(home.data) in command:
            process.send_signal(_FAST)
            try:
                process.wait(_STOP_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(_STOP_S)
    (home.data / "postmaster.pid").unlink(missing_ok=True)
    for left in home.socket_folder.iterdir():
        left.unlink()


def _have_database(home: ServerHome) -> None:
    """Make the database where there is none; whole, or not at all."""
    if home.data.exists():
        return
    for left in home.data.parent.glob("data.draft-*"):
        shutil.rmtree(left, ignore_errors=True)
    # By number: what a killed keeper had begun may need a moment to notice, and goes on writing until then.
    draft = home.data.with_name(f"data.draft-{os.getpid()}")
    draft.mkdir(mode=0o700)
    home.give(draft)
    password = home.socket_folder / "password"
    password.touch(mode=0o600)
    password.write_bytes(home.password_file.read_bytes())
    home.give(password)
    try:
        make = [str(home.programs / "initdb"), "-D", str(draft), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run([*make, "--encoding=UTF8", "--no-locale"], check=True, **_child(home, signal.SIGKILL))
    finally:
        password.unlink()
    draft.rename(home.data)


def _start(home: ServerHome) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(home.socket_folder),
        "port": str(PORT),
        # Dagster keeps times without a zone, in that of the server.
        "timezone": "UTC",
        # Dagster tries inserts that may be there already: no error, and what it writes belongs in no log.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
    }
    command = [str(home.programs / "postgres"), "-D", str(home.data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return subprocess.Popen(command, **_child(home, _FAST))


def _child(home: ServerHome, ending: signal.Signals) -> dict[str, Any]:
    """How to start a program: as the account of the server, in a folder where that account may be, never to outlive us."""
    options: dict[str, Any] = {"cwd": home.data.parent, "stdin": subprocess.DEVNULL}
    options["preexec_fn"] = end_with_parent(os.getpid(), ending)
    if home.account is not None:
        options |= {"user": home.account.pw_uid, "group": home.account.pw_gid, "extra_groups": []}
    return options


def _stop(server: subprocess.Popen[bytes]) -> int:
    server.send_signal(_FAST)
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
