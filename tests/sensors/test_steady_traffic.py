"""Records that never stop coming: turns end in decisions all the same, and a person may act on them."""

from __future__ import annotations

import time

import pytest
from dagster import DagsterRunStatus

from flywheel_assets.core.graph import CATALOG, DECISION, EVERYTHING, Partition
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.runs import BATCH_TAG
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench, bench, instance
from tests.fake_platform import right
from tests.sensors.daemon import Daemon

__all__ = ["bench", "instance"]

ONE_WITHOUT_TRAINING = [{"id": "small", "model": "small.gguf", "trainable": False}]


@pytest.fixture
def daemon(bench: Bench) -> Daemon:
    bench.content |= {"candidates": ONE_WITHOUT_TRAINING}
    return Daemon(bench)


def _decided(bench: Bench) -> bool:
    return bench.flywheel.artifacts.current(DECISION, Partition("tickets")) is not None


def test_records_before_every_tick_and_every_run_hold_no_decision_up(daemon: Daemon) -> None:
    bench, seed = daemon.bench, 100
    # A turn is worth its cost with every record: pacing alone must not be what lets it end.
    bench.content["automation"] = {"min_new_records": 1}
    bench.ingest(120)
    for _ in range(8):
        bench.ingest(4, seed=(seed := seed + 1))
        for request in daemon.requests():
            bench.ingest(4, seed=(seed := seed + 1))
            daemon.execute(request)
        if _decided(bench):
            break
    assert _decided(bench), daemon.asked
    assert daemon.asked.count("tickets@data") == 1
    # The catalog is made, too, before the next turn is over.
    for _ in range(3):
        bench.ingest(4, seed=(seed := seed + 1))
        for request in daemon.requests():
            daemon.execute(request)
    assert bench.flywheel.artifacts.current(CATALOG, EVERYTHING) is not None

    behind = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]["lag"]
    assert behind["waiting_records"] > 0 and behind["seconds"] < 600


def test_a_turn_of_flywheel_run_ends_though_records_come_while_it_works(bench: Bench) -> None:
    bench.content |= {"candidates": ONE_WITHOUT_TRAINING}
    bench.ingest(120)
    seeds = iter(range(200, 400))

    def one_more(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        # While a model answers, further records arrive, and another workload appears.
        seed = next(seeds)
        bench.ingest(1, seed=seed)
        bench.ingest(60, workload=f"new-{seed % 3}", seed=seed)
        return right(candidate, variant, row)

    bench.platform.answers = one_more
    report = bench.turn()
    assert report.ok and report.materialized.count("records of tickets") == 1
    assert _decided(bench) and report.arrived == ("new-0", "new-1", "new-2", "tickets")


def test_newer_records_end_a_decision_only_when_they_have_waited_for_too_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.content |= {"candidates": ONE_WITHOUT_TRAINING}
    bench.ingest(120)
    bench.turn()
    bench.ingest(5, seed=8)

    def expired() -> str | None:
        reason: str | None = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]["expired"]
        return reason

    assert expired() is None
    later = time.time() + 3700
    monkeypatch.setattr(time, "time", lambda: later)
    assert "5 newer records are not in it" in str(expired())


def test_a_workload_that_waits_for_its_first_records_asks_for_no_run_for_ever(daemon: Daemon) -> None:
    bench = daemon.bench
    bench.ingest(120)
    bench.turn()
    bench.ingest(3, workload="rare")
    for _ in range(3):
        for request in daemon.requests():
            daemon.execute(request)
    assert daemon.asked in ([], ["all@verdict"])
    assert "rare: 3 new records, 50 are waited for" in daemon.skipped()


def test_new_records_that_flow_wait_for_more_than_those_that_came_to_rest(daemon: Daemon) -> None:
    bench = daemon.bench
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", "workloads": []}]
    bench.ingest(120)
    for request in daemon.requests():
        daemon.execute(request)
    # Nobody is evaluated, so nothing is decided, and every tenth may be what lacks.
    bench.ingest(5, seed=8)
    assert "5 new records, 12 are waited for, at most another 60 min" in daemon.skipped()
    bench.ingest(10, seed=9)
    assert [request.partition_key for request in daemon.requests()] == ["tickets"]


def test_a_cell_whose_runs_are_killed_is_tried_again_and_then_decided_without(daemon: Daemon) -> None:
    bench = daemon.bench
    bench.ingest(120)
    job = bench.defs.resolve_implicit_global_asset_job_def()
    kills = 0
    # One tick for the data; then three kills and the tick that gives up, three times.
    for _ in range(13):
        for request in daemon.requests():
            if request.tags[BATCH_TAG].endswith("@examine"):
                # As `kill -9` leaves it, once it is buried.
                kills += 1
                bench.instance.create_run_for_job(job, tags=request.tags, status=DagsterRunStatus.FAILURE)
            else:
                daemon.execute(request)
    # Three for each of what can go first: the prefix, the word that there is no training, the base evaluation.
    assert kills == 9
    failure = bench.flywheel.artifacts.failure("evals/base", Partition("tickets", "small"))
    assert failure is not None and "3 runs in a row were killed" in failure.message
