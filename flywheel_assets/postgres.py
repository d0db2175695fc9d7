"""Run a command with Dagster's storage in PostgreSQL: `python -m flywheel_assets.postgres [--folder F] -- COMMAND...`.

What `make ui PROFILE=postgres` and its sisters put in front. Where FLYWHEEL_POSTGRES_URL names a server, that one is used;
otherwise an embedded one is started, or found running, and stops after the last command that uses it. The command takes this
process over, so signals and exit codes are its own. DAGSTER_HOME says which dagster.yaml counts; where it says nothing, that
of deploy/postgres in the working folder does.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from dotenv import load_dotenv

from flywheel_assets.resources.postgres.server import EmbeddedServer
from flywheel_assets.resources.postgres.url import URL_ENV, PostgresError, with_driver


def main(arguments: list[str]) -> NoReturn:
    """Become the command, with a server behind it. Exits 2 without a command, 1 without a server."""
    parser = argparse.ArgumentParser(prog="python -m flywheel_assets.postgres", description="Run a command on PostgreSQL.")
    parser.add_argument("--folder", type=Path, default=Path(".postgres"), help="of the embedded server (default: .postgres)")
    parser.add_argument("command", nargs="+", help="after `--`: the command and its arguments")
    asked = parser.parse_args(arguments)
    # As `flywheel` reads it: what the shell has set wins.
    load_dotenv(Path(".env"), override=False)
    profile = Path.cwd() / "deploy" / "postgres"
    if (profile / "dagster.yaml").is_file():
        os.environ.setdefault("DAGSTER_HOME", str(profile))
    try:
        os.environ[URL_ENV] = _server_url(asked.folder)
        os.execvp(asked.command[0], asked.command)
    except PostgresError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {asked.command[0]}: {error.strerror}")


def _server_url(folder: Path) -> str:
    """The URL of the server that was named, or of an embedded one that runs at least as long as this process."""
    if named := os.environ.get(URL_ENV, "").strip():
        return with_driver(named)
    server = EmbeddedServer(folder)
    # Inherited by the command: the server stays as long as the process lives, not the program it began as.
    os.set_inheritable(server.hold(), True)
    return server.url


if __name__ == "__main__":
    main(sys.argv[1:])
