"""What a turn books: of a run that failed, what it said; of a process that was killed, that it said nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.batches import Batch
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.planner import MOST_KILLS
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.serving import ServerKilled
from flywheel_assets.resources.training import TrainingKilled
from flywheel_assets.runner import Choice, RunReport, turn
from flywheel_assets.trainer.failure import FailureKind
from tests.assets.conftest import Bench, InlineWorkers

TICKETS, TINY = Partition("tickets"), Partition("tickets", "tiny")
KILLED = TrainingKilled(FailureKind.KILLED, "The training process was killed from outside.", "Lower training.batch_size.")


class DyingWorkers(InlineWorkers):
    """A worker dies before it could make a run, where `dies_in` says so."""

    def __init__(self, bench: Bench, dies_in: Callable[[Batch], bool]) -> None:
        super().__init__(bench.instance, bench.defs)
        self._dies_in = dies_in

    def wait(self) -> list[tuple[Batch, bool]]:
        batch = self._waiting[0][0]
        if self._dies_in(batch):
            self._waiting.pop(0)
            return [(batch, False)]
        return super().wait()


class EndedWorkers(InlineWorkers):
    """A worker is ended in the middle of a body: its run has begun a step, and says nothing of how that went."""

    def wait(self) -> list[tuple[Batch, bool]]:
        batch = self._waiting[0][0]
        try:
            return super().wait()
        except DagsterExecutionInterruptedError:
            return [(batch, False)]


def turn_with(bench: Bench, workers: InlineWorkers) -> RunReport:
    return turn(bench.instance, bench.flywheel, workers, Choice(), lambda message: None)


def test_a_training_that_was_killed_is_tried_again_before_it_counts_as_a_hole(bench: Bench) -> None:
    bench.ingest(120)
    bench.platform.train_error["tiny"] = KILLED
    for _ in range(MOST_KILLS - 1):
        report = bench.turn()
        assert "killed from outside" in report.failures["adapter of tickets x tiny"]
        assert bench.flywheel.artifacts.current(graph.COMPARISON, TICKETS) is None
    # The next one lives, and is compared.
    del bench.platform.train_error["tiny"]
    assert bench.turn().ok
    assert "tiny" in bench.platform.trained


def test_what_is_killed_every_time_is_compared_as_a_hole_in_the_end(bench: Bench) -> None:
    bench.ingest(120)
    bench.platform.train_error["tiny"] = KILLED
    for _ in range(MOST_KILLS):
        report = bench.turn()
    assert f"({MOST_KILLS} of {MOST_KILLS} times" in report.failures["adapter of tickets x tiny"]
    assert "decision of tickets" in report.materialized


def test_a_model_server_that_was_killed_says_nothing_about_the_model(bench: Bench) -> None:
    bench.ingest(120)

    def dies(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        if (candidate, variant) == ("tiny", Variant.BASE):
            raise ServerKilled("candidate 'tiny': the model server was killed")
        return row.reference

    bench.platform.answers = dies
    report = bench.turn()
    assert "the model server was killed (1 of 3 times" in report.failures["evals/base of tickets x tiny"]
    assert bench.flywheel.artifacts.current(graph.COMPARISON, TICKETS) is None
    bench.platform.answers = lambda candidate, variant, row: row.reference
    assert bench.turn().ok


def test_only_what_a_killed_run_was_at_counts_as_killed_and_the_rest_is_made(bench: Bench) -> None:
    bench.ingest(120)

    def in_the_prefix(batch: Batch) -> bool:
        return batch.partition == TINY and graph.PREFIX in batch.assets

    for _ in range(MOST_KILLS):
        workers = DyingWorkers(bench, in_the_prefix)
        report = turn_with(bench, workers)
        assert "was killed" in report.failures["prefix of tickets x tiny"]
    # It was never at work on this one, which needs no prefix.
    assert bench.flywheel.artifacts.failure(graph.EVALS[Variant.BASE], TINY) is None
    assert bench.flywheel.artifacts.current(graph.EVALS[Variant.BASE], TINY) is not None
    assert "decision of tickets" in report.materialized


def test_the_asset_whose_step_had_begun_is_the_one_that_was_killed(bench: Bench) -> None:
    bench.ingest(120)

    def ended(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        if (candidate, variant) == ("tiny", Variant.BASE):
            raise DagsterExecutionInterruptedError
        return row.reference

    bench.platform.answers = ended
    report = turn_with(bench, EndedWorkers(bench.instance, bench.defs))
    # Dagster executes the evaluation first, the plan names the prefix first.
    assert "was killed" in report.failures["evals/base of tickets x tiny"]
    assert "prefix of tickets x tiny" in report.materialized and "prefix of tickets x tiny" not in report.failures


def test_a_failure_of_before_is_not_told_as_one_of_this_run(bench: Bench) -> None:
    bench.ingest(120)
    evaluation = graph.EVALS[Variant.PREFIXED]
    bench.flywheel.artifacts.record_failure(evaluation, TINY, "the key of another time", "it broke long ago", "another run")
    report = turn_with(bench, DyingWorkers(bench, lambda batch: batch.partition == TINY and graph.PREFIX in batch.assets))
    assert "was killed" in report.failures["prefix of tickets x tiny"]
    assert "it broke long ago" not in report.failures.values()


@pytest.mark.parametrize("name", [graph.BASE, graph.TRAIN])
def test_one_half_of_the_datasets_that_was_never_told_is_told_with_the_other_and_nothing_is_computed(
    bench: Bench, name: str
) -> None:
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", "workloads": []}]
    bench.ingest(120)
    assert bench.turn().ok
    bench.instance.wipe_assets([asset_key(name)])
    report = bench.turn()
    assert report.ok and set(report.materialized) == {"datasets/base of tickets", "datasets/train of tickets"}
    assert not bench.turn().materialized
