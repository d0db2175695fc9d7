"""The one command that starts the sensors, taken out of the documents and run as it is written there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clone import REPOSITORY, Clone

PAGES = ("README.md", "docs/automation.md", "docs/elasticsearch.md", "docs/langfuse.md")


def recipe(target: str) -> str:
    """What `make TARGET` would run in a clone that is set up."""
    command = ["make", "--dry-run", "--no-print-directory", "--old-file", ".venv/.base", target]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_page_that_speaks_of_sensors_names_the_one_command_and_no_other(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert "`make sensors`" in text
    # Without the clone's Dagster, instance and workspace the command fails as it stands.
    for found in re.finditer(r"[^\n`]*dagster sensor start[^\n`]*", text):
        assert re.search(r"DAGSTER_HOME=\S+ \.venv/bin/dagster sensor start .*-w workspace\.yaml", found[0]), found[0]


@pytest.mark.timeout(300)
def test_the_command_starts_every_sensor_of_the_settings_and_says_which(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content |= {"trace_store": "elasticsearch", "langfuse": {"enabled": True}}

    clone = Clone.make(tmp_path / "clone", edit)
    done = ""
    for line in recipe("sensors").splitlines():
        command = line.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        assert command != line, "the clone's own Dagster"
        ran = subprocess.run(command, shell=True, cwd=clone.root, env=clone.env(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        done += ran.stdout
    for name in ("reconcile", "janitor", "elasticsearch_traces", "langfuse_traces"):
        assert re.search(rf"^(Sensor: )?{name}\b", done, flags=re.MULTILINE), done
