"""Every command that a document shows is run as it stands there, or belongs to a test that is named here for it.

The clone it is run in has one candidate, an endpoint of ours, and records of the workloads that the pages speak of.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clone import REPOSITORY, Clone
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import OpenAIDouble

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])
BLOCK = re.compile(r"```(?:bash|sh|console)\n(.*?)```", flags=re.DOTALL)

# A command, without its remark, that a test of its own runs: the test's file, and words in it that show so.
ELSEWHERE = {
    "make demo": ("tests/e2e/test_demo.py", 'clone.flywheel("demo"'),
    "make ui": ("tests/e2e/test_webserver.py", "dagster_dev"),
    "make sensors": ("tests/sensors/test_start_command.py", 'recipe("sensors")'),
    "flywheel serve bfcl-tool-router": ("tests/e2e/test_demo.py", '"serve", WORKLOAD'),
    "flywheel pull langfuse": ("tests/e2e/test_readme_connections.py", "pulled = run("),
    "flywheel import-config config.yaml": ("tests/test_import_config.py", "import-config"),
}
# Not run by any test, and why.
NOT_RUN = {
    "git clone <this repository> flywheel_assets && cd flywheel_assets": ".ci/run begins with a clone",
    "make setup": ".ci/run begins with it",
    "mlflow ui --backend-store-uri sqlite:////path/to/.flywheel/mlflow/mlflow.db": "a page for a person; doctor prints it",
    ".venv/bin/pip install --upgrade torch==2.13.0 unsloth unsloth_zoo": "needs a GPU box",
}
# Blocks of these pages are run line by line elsewhere, with servers of ours in the place of the examples.
WHOLE_BLOCKS_ELSEWHERE = {
    ("README.md", "ELASTICSEARCH_URL"): "tests/e2e/test_readme_connections.py",
    ("README.md", "LANGFUSE_BASE_URL"): "tests/e2e/test_readme_connections.py",
    ("langfuse.md", "LANGFUSE_BASE_URL"): "tests/e2e/test_readme_connections.py",
    ("telemetry.md", "LANGFUSE_BASE_URL"): "tests/resources/telemetry/test_langfuse_observer.py",
    ("nemo.md", "import-config"): "tests/test_import_config.py, tests/resources/nemo/test_health.py, tests/e2e/test_nemo.py",
}
# `doctor` finds fault with a machine that lacks something, and says so with its exit code.
MAY_SAY_NO = "flywheel doctor"
# Pages show these as alternatives: what serves has to be taken back before it is rejected, and to be there to be taken back;
# and after looks were started over, it is decided anew before anybody approves.
_WHY = ("--why", "so that the next command has something to do")
BEFORE = {"flywheel reject": ("rollback", *_WHY), "flywheel rollback": ("approve", *_WHY), "flywheel approve": ("run",)}


@dataclass(frozen=True)
class Command:
    """One line of a bash block, without its remark."""

    page: str
    line: str

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def commands() -> Iterator[Command]:
    """Every command of every page that is to be run or accounted for here."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if any(name == page.name and word in block for name, word in WHOLE_BLOCKS_ELSEWHERE):
                continue
            for line in block.strip().splitlines():
                command = re.split(r"\s{2,}#", line)[0].strip().replace(".venv/bin/flywheel", "flywheel")
                if command:
                    yield Command(page.name, command)


# Once each, whichever page shows it first.
TO_RUN = list({one.line: one for one in commands() if one.line not in ELSEWHERE and one.line not in NOT_RUN}.values())


@pytest.mark.parametrize("command", ELSEWHERE)
def test_a_command_that_is_run_elsewhere_is_run_there(command: str) -> None:
    file, words = ELSEWHERE[command]
    assert words in (REPOSITORY / file).read_text(encoding="utf-8")


def test_nothing_is_accounted_for_that_no_page_shows() -> None:
    shown = {command.line for command in commands()} | {"flywheel pull langfuse", "flywheel import-config config.yaml"}
    assert {*ELSEWHERE, *NOT_RUN} - shown == set()
    for name, word in WHOLE_BLOCKS_ELSEWHERE:
        pages = [page.read_text(encoding="utf-8") for page in PAGES if page.name == name]
        assert any(word in block for page in pages for block in BLOCK.findall(page))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    answers: dict[str, Any] = {}
    with OpenAIDouble(answer=lambda body: answers[body["messages"][-1]["content"]]) as endpoint:

        def one_candidate(content: dict[str, Any]) -> None:
            small = {"id": "hosted-small", "model": endpoint.url, "engine": "openai", "trainable": False}
            # So wide a margin that the few rows of a test settle it: there is something to approve.
            content |= {"candidates": [small], "decision": {"gates": [{"metric": "function_name", "margin": 0.25}]}}
            content |= {"split": {"eval_size": 75}}

        clone = Clone.make(tmp_path_factory.mktemp("documents") / "clone", one_candidate)
        for name in ("constraints.txt", "pyproject.toml"):
            shutil.copyfile(REPOSITORY / name, clone.root / name)
        for name, workload, seed in (("my.jsonl", "my-workload", 7), ("calls.jsonl", "checkout-router", 8)):
            path = write_ticket_records(clone.root / name, 150, workload=workload, seed=seed)
            for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
                answers[record["request"]["messages"][-1]["content"]] = record["response"]["choices"][0]["message"]
        (clone.root / "functions.json.gz").write_bytes(_hermes_rows())
        # Pages are read in any order; each of them speaks of workloads that are there.
        clone.flywheel("ingest", "my.jsonl")
        clone.flywheel("ingest", "calls.jsonl")
        yield clone


def _hermes_rows() -> bytes:
    """The row that docs/data.md shows, ready to be ingested."""
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"```json hermes\n(.*?)\n```", text, flags=re.DOTALL)
    return gzip.compress(json.dumps([json.loads(row)]).encode())


@pytest.mark.parametrize("command", TO_RUN, ids=str)
def test_a_command_of_the_documents_does_what_it_says(command: Command, stage: Clone) -> None:
    for shown, first in BEFORE.items():
        if command.line.startswith(shown):
            command_before, *options = first
            stage.flywheel(command_before, "my-workload", *options, ok=False)
    line = command.line.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    line = re.sub(r"^flywheel\b", f"{sys.executable} -m flywheel_assets.cli", line)
    # The environment of the tests holds every extra; that pip finds each of them is what is looked at.
    line = re.sub(r"^pip install\b", f"{sys.executable} -m pip install --dry-run", line)
    ran = subprocess.run(line, shell=True, cwd=stage.root, env=stage.env(), capture_output=True, text=True, timeout=600)
    accepted = (0, 1) if command.line.startswith(MAY_SAY_NO) else (0,)
    assert ran.returncode in accepted, f"{command}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    assert "Traceback" not in ran.stderr
