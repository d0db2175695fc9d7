"""Two workload ids with one slug: the second is refused by name, and never merged into the first."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flywheel_assets.core.slugs import workload_slug
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.trace_stores import LocalTraceStore
from tests.e2e.own_traffic import write_ticket_records

OWNER = "Router (EU)"


@pytest.mark.parametrize("together", [False, True])
def test_an_id_that_takes_anothers_slug_is_refused_and_the_first_keeps_its_records(tmp_path: Path, together: bool) -> None:
    store = LocalTraceStore(tmp_path / "traces.sqlite")
    thief = workload_slug(OWNER)
    assert workload_slug(thief) == thief
    first = write_ticket_records(tmp_path / "first.jsonl", 5, workload=OWNER)
    second = write_ticket_records(tmp_path / "second.jsonl", 7, workload=thief, seed=8)
    if together:
        report = ingest([first, second], store)
    else:
        ingest([first], store)
        report = ingest([second], store)
    assert report.rejected == 7 and report.reasons == {"bad_workload_id": 7}
    (summary,) = store.workloads()
    assert (summary.workload_id, summary.count) == (OWNER, 5)
    (refused,) = store.rejects(thief)
    assert f"belongs to '{OWNER}' already" in refused.detail


def test_records_as_they_came_are_for_nobody_elses_eyes(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = LocalTraceStore(tmp_path / "home" / "traces.sqlite")
        ingest([write_ticket_records(tmp_path / "log.jsonl", 5, workload="tickets")], store)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
        assert modes and set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    finally:
        os.umask(before)
