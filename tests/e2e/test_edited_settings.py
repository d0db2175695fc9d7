"""flywheel.yaml edited beside a running `dagster dev`: obeyed by the next tick, once, without a reload."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.automation import DAEMON_LOOP_S, INTERVAL_S, runs, settled, start_sensors, until
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import dagster_dev, materializations
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import OpenAIDouble

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_an_edit_is_decided_on_once_and_asks_for_nothing_for_ever(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    with OpenAIDouble() as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}

        def first(content: dict[str, Any]) -> None:
            content.update(candidates=[remote], workloads={}, automation={"interval_s": INTERVAL_S})

        clone.edit(first)
        clone.flywheel("ingest", str(write_ticket_records(tmp_path / "log.jsonl", 80, workload="tickets")))
        with dagster_dev(clone) as url:
            start_sensors(url, "reconcile")
            until(clone, 300, lambda: bool(materializations(url, ["decision"], "tickets")))
            until(clone, 120, lambda: settled(url, clone))

            clone.edit(lambda content: content["decision"].update(alpha=0.1))
            until(clone, 120, lambda: len(materializations(url, ["decision"], "tickets")) == 2)
            until(clone, 120, lambda: settled(url, clone))
            asked = len(runs(url))
            # What the code server read when it started says alpha 0.05 to this day.
            time.sleep(4 * (INTERVAL_S + DAEMON_LOOP_S))
            assert len(runs(url)) == asked

            before = (clone.root / "flywheel.yaml").read_text()
            (clone.root / "flywheel.yaml").write_text("candidates: {")
            time.sleep(2 * (INTERVAL_S + DAEMON_LOOP_S))
            (clone.root / "flywheel.yaml").write_text(before)
            time.sleep(2 * (INTERVAL_S + DAEMON_LOOP_S))
            assert len(runs(url)) == asked and len(materializations(url, ["decision"], "tickets")) == 2
