"""`PROFILE=postgres` as a user meets it: the commands of the Makefile on one server, and the demo on both storages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flywheel_assets.resources.postgres.server import EmbeddedServer
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import ask, dagster_dev, dev_log
from tests.e2e.own_traffic import write_ticket_records
from tests.postgres import REPOSITORY, end_all, execute, until_stopped, working_for


def datasets_only(content: dict[str, Any]) -> None:
    """Settings under which a workload is prepared and nobody is examined: a run of the daemon takes seconds."""
    content["automation"] = {"interval_s": 10}
    for candidate in content["candidates"]:
        candidate["workloads"] = []


def recipe(target: str) -> list[str]:
    """What `make TARGET PROFILE=postgres` runs in a clone that is set up, with the Python of the tests."""
    set_up = [word for name in (".base", ".postgres", ".local") for word in ("--old-file", f".venv/{name}")]
    command = ["make", "--dry-run", "--no-print-directory", *set_up, target, "PROFILE=postgres"]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.replace(".venv/bin/", f"{Path(sys.executable).parent}/") for line in lines]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    tmp_path.chmod(0o711)
    clone = Clone.make(tmp_path / "clone", datasets_only).on_postgres()
    try:
        yield clone
    finally:
        end_all(clone.root / ".postgres")


@pytest.mark.parametrize("target", ["ui", "demo", "sensors"])
def test_make_runs_the_command_through_postgres_and_on_its_instance(target: str) -> None:
    ran = recipe(target)
    assert ran and all("-m flywheel_assets.postgres -- " in line for line in ran), ran
    home = ["make", "--no-print-directory", "--eval", "say: ; @echo $$DAGSTER_HOME", "say", "PROFILE=postgres"]
    environment = {**os.environ, "DAGSTER_HOME": "/elsewhere"}
    said = subprocess.run(home, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(REPOSITORY / "deploy" / "postgres")


def test_a_profile_that_is_none_is_refused_with_those_there_are() -> None:
    ran = subprocess.run(["make", "ui", "PROFILE=oracle"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode != 0
    assert "There is no deploy/oracle/dagster.yaml. Profiles: postgres" in ran.stderr


def test_the_instance_without_a_url_says_which_variable_is_missing(clone: Clone) -> None:
    clone.through = []
    clone.environment["FLYWHEEL_POSTGRES_URL"] = ""
    refused = clone.flywheel("run", ok=False)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "FLYWHEEL_POSTGRES_URL" in said and "Traceback" not in said, said


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ui_sensors_and_the_command_line_share_a_server_that_ends_with_them(clone: Clone) -> None:
    folder = clone.root / ".postgres"
    with dagster_dev(clone) as url:
        server = {process.pid for process in working_for(folder)}
        assert len(server) == 2
        for line in recipe("sensors"):
            ran = subprocess.run(line, shell=True, cwd=clone.root, env=clone.env(), capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
        clone.flywheel("ingest", str(write_ticket_records(clone.root / "my.jsonl", 120, workload="tickets")))
        ours = EmbeddedServer(folder).url
        ended = "SELECT status FROM runs WHERE status IN ('SUCCESS', 'FAILURE')"
        deadline = time.monotonic() + 300
        while not execute(ours, ended):
            assert time.monotonic() < deadline, dev_log(clone)
            time.sleep(2)
        assert execute(ours, ended) == [("SUCCESS",)], dev_log(clone)
        assert {str(status) for (status,) in execute(ours, "SELECT DISTINCT status FROM job_ticks")} <= {
            "SKIPPED",
            "SUCCESS",
            "STARTED",
        }
        assert ask(url, "{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
        assert {process.pid for process in working_for(folder)} == server
        password = (folder / "password").read_text()
        assert password not in (clone.root / "dev.log").read_text()
    until_stopped(folder)
    assert not list(clone.root.glob(".dagster/storage/*.db")), "nothing of Dagster's is kept in sqlite"


@pytest.mark.long
@pytest.mark.model
@pytest.mark.network
@pytest.mark.timeout(5400)
def test_the_demo_makes_the_same_on_sqlite_and_on_postgresql(tmp_path: Path) -> None:
    """The whole demo twice, side by side: separate homes, empty caches."""
    tmp_path.chmod(0o711)
    clones = {name: Clone.make(tmp_path / name, repeatable) for name in ("sqlite", "postgres")}
    clones["postgres"].on_postgres()
    for clone in clones.values():
        clone.environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda clone: clone.flywheel("demo", timeout=5000), clones.values()))
        made = {name: _made(clone) for name, clone in clones.items()}
        for what in made["sqlite"]:
            assert made["postgres"][what] == made["sqlite"][what], what
        assert len(made["sqlite"]["adapters"]) == len(made["sqlite"]["predictions"]) / 3
    finally:
        end_all(clones["postgres"].root / ".postgres")


def repeatable(content: dict[str, Any]) -> None:
    """Settings under which a model trains and answers the same to the bit: how sums are split over threads and over the
    requests of a batch decides about their last digits, and those about the next token."""
    content["local"] = {**content.get("local", {}), "threads": 1, "parallel_runs": 1}
    content["evaluation"] = {**content.get("evaluation", {}), "concurrency": 1}


def _made(clone: Clone) -> dict[str, Any]:
    """Dataset versions, predictions without their times, adapter bytes and verdicts of a clone."""
    artifacts = clone.home / "artifacts"
    refs = {
        str(path.relative_to(artifacts / "refs")).removesuffix(".json"): json.loads(path.read_text())["version"]
        for path in sorted((artifacts / "refs").rglob("*.json"))
    }
    folders = {name: artifacts / "objects" / name / version for name, version in refs.items()}
    predictions = {
        name: [{key: value for key, value in row.items() if key != "latency_ms"} for row in pq.read_table(file).to_pylist()]
        for name, folder in folders.items()
        if (file := folder / "predictions.parquet").is_file()
    }
    return {
        "datasets": {
            name: json.loads((folder / "manifest.json").read_text())["data_version"]
            for name, folder in folders.items()
            if name.startswith("datasets/")
        },
        "adapters": {
            name: file.read_bytes()
            for name, folder in folders.items()
            if (file := folder / "adapter" / "adapter_model.safetensors").is_file()
        },
        "predictions": predictions,
        "verdicts": {
            name: [workload["decision"][key] for key in ("verdict", "candidate", "variant")]
            for name, workload in clone.status().items()
        },
    }
