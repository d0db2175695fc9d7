"""`flywheel looks` as a user meets it: what is spent, what is left, and starting over with a name and a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel_assets.core.looks import Look
from flywheel_assets.resources.artifacts import ArtifactStore
from flywheel_assets.resources.looks import LookLog
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    clone = Clone.make(tmp_path / "clone", lambda content: content.update(decision={"looks": [40, 80]}))
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")))
    with LookLog(clone.home, ArtifactStore(clone.home / "artifacts")).deciding("tickets") as (_, record):
        record(Look(1, 45, "c1", 0.006, "inconclusive", (40, 80), 0.05))
        record(Look(2, 85, "c2", 0.044, "promote", (40, 80), 0.05, ("small", "customized", "a1")))
    return clone


def test_the_log_is_shown_and_starting_over_gives_the_whole_alpha_back(clone: Clone) -> None:
    shown = clone.flywheel("looks", "tickets").stdout
    assert "alpha 0.05: 0.05 spent, 0 left" in shown and "promote small (customized)" in shown
    assert 'flywheel looks tickets --start-over --why "..."' in shown
    refused = clone.flywheel("looks", "tickets", "--start-over", ok=False)
    assert refused.returncode == 2 and "needs --why" in refused.stderr and "Traceback" not in refused.stderr
    alone = clone.flywheel("looks", "tickets", "--why", "curious", ok=False)
    assert alone.returncode == 2 and "go with --start-over" in alone.stderr
    done = clone.flywheel("looks", "tickets", "--start-over", "--why", "new candidates", "--who", "Ada").stdout
    assert "by Ada: new candidates" in done and "flywheel run tickets" in done
    content = json.loads(clone.flywheel("looks", "tickets", "--json").stdout)
    assert (content["spent"], content["left"], content["taken"]) == (0.0, 0.05, 0)
    assert [(entry["kind"], entry.get("counts")) for entry in content["log"]] == [
        ("look", False),
        ("look", False),
        ("start_over", None),
    ]
    assert content["started_over"]["who"] == "Ada"


def test_help_teaches_what_a_look_is_and_when_to_start_over(clone: Clone) -> None:
    said = " ".join(clone.flywheel("looks", "--help").stdout.split())
    for words in ("each look spends", "the last look spends all of it", "--start-over --why", "docs/decisions.md"):
        assert words in said
