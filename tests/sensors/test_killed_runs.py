"""Runs of the daemon that are killed again and again: only what they were at is given up, and the rest is made."""

from __future__ import annotations

from contextlib import suppress

from dagster._core.errors import DagsterExecutionInterruptedError

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.planner import MOST_KILLS
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from tests.assets.conftest import Bench, bench, instance
from tests.sensors.daemon import Daemon

__all__ = ["bench", "instance"]

SMALL = Partition("tickets", "small")


def test_only_the_asset_that_killed_runs_were_at_is_given_up(bench: Bench) -> None:
    bench.content["candidates"] = bench.content["candidates"][:1]
    bench.ingest(120)
    daemon, kills = Daemon(bench), 0

    def ended(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        nonlocal kills
        if variant is Variant.BASE:
            kills += 1
            raise DagsterExecutionInterruptedError
        return row.reference

    bench.platform.answers = ended
    for _ in range(4 * MOST_KILLS):
        for request in daemon.requests():
            # Raised by Dagster in the middle of the run, which is booked as failed.
            with suppress(DagsterExecutionInterruptedError):
                daemon.execute(request)
    artifacts = bench.flywheel.artifacts
    assert kills == MOST_KILLS
    failure = artifacts.failure(graph.EVALS[Variant.BASE], SMALL)
    assert failure is not None and f"{MOST_KILLS} runs in a row were killed" in failure.message
    # Dagster begins with the evaluation, the plan with the prefix: that one was never at work when a run was killed.
    assert artifacts.failure(graph.PREFIX, SMALL) is None
    assert artifacts.current(graph.EVALS[Variant.PREFIXED], SMALL) is not None
    assert artifacts.current(graph.DECISION, Partition("tickets")) is not None
