"""`flywheel pull` as a user meets it, and what `flywheel doctor` says of a source."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clone import Clone
from tests.langfuse_rows import row
from tests.langfuse_server import SECRET_KEY, Fault, LangfuseServer


@pytest.fixture
def server() -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        server.add(*(row(str(n), time.time() - 60 - n) for n in range(5)), row("cut", time.time() - 90, input="[{"))
        yield server


@pytest.fixture
def clone(server: LangfuseServer, tmp_path: Path) -> Clone:
    clone = Clone.make(tmp_path / "clone", lambda content: content.update(langfuse={"enabled": True, "page_size": 3}))
    clone.environment |= server.environment
    return clone


def test_pull_counts_as_ingest_does_waits_when_asked_and_adds_nothing_twice(clone: Clone, server: LangfuseServer) -> None:
    server.faults.append(Fault(429, retry_after="1", path="cursor="))
    pulled = clone.flywheel("pull", "langfuse", "--json")
    assert json.loads(pulled.stdout) == {
        "new": 5,
        "duplicate": 0,
        "rejected": 1,
        "reasons": {"truncated": 1},
        "workloads": {"router": 5},
    }
    assert "asked to wait 1 s (rate limit)" in pulled.stderr
    assert json.loads(clone.flywheel("pull", "--json").stdout)["new"] == 0
    assert clone.status()["router"]["records"] == 5


def test_a_project_that_cannot_be_read_is_one_message_with_the_next_step(clone: Clone) -> None:
    clone.environment["LANGFUSE_SECRET_KEY"] = "sk-lf-wrong"
    result = clone.flywheel("pull", ok=False)
    assert result.returncode == 2
    assert "refuses the keys" in result.stderr and "Traceback" not in result.stderr
    assert "sk-lf-wrong" not in result.stderr + result.stdout


def test_doctor_says_what_it_found_of_the_project_and_no_key(clone: Clone, server: LangfuseServer) -> None:
    server.version = "4.16.0"
    doctor = clone.flywheel("doctor", "--json", ok=False)
    (finding,) = [finding for finding in json.loads(doctor.stdout) if finding["what"] == "source langfuse"]
    assert finding["ok"] and "project 'Proj'" in finding["found"] and "they are lost" in finding["advice"]
    assert SECRET_KEY not in doctor.stdout + doctor.stderr
