"""Deciding again through Dagster: settings there and back, edited schedules, kills, and a person who starts over."""

from __future__ import annotations

from typing import Any

import dagster as dg
import orjson
import pytest

from flywheel_assets.assets.decision import DECISION_FILE
from flywheel_assets.assets.distribution import CATALOG_FILE
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.booking import RunReport
from flywheel_assets.core import graph
from flywheel_assets.core.batches import Batch, Lane
from flywheel_assets.core.graph import CATALOG, DECISION, EVERYTHING, Partition
from flywheel_assets.core.looks import Look, counted
from flywheel_assets.runner import Choice, turn
from tests.assets.conftest import Bench, InlineWorkers
from tests.fake_platform import right

TICKETS = Partition("tickets")


def starts(bench: Bench, *, looks: list[int] | None = None, eval_size: int = 25, records: int = 240) -> None:
    """A workload whose one candidate always agrees with the teacher, decided once."""
    bench.platform.answers = right
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    gated(bench, 0.2, looks)
    sized(bench, eval_size)
    bench.ingest(records)
    assert bench.turn().ok


def gated(bench: Bench, margin: float, looks: list[int] | None = None, **more: Any) -> None:
    schedule = {} if looks is None else {"looks": looks}
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": margin}], **schedule, **more}


def sized(bench: Bench, eval_size: int) -> None:
    bench.content["split"] = {"eval_size": eval_size, "min_total_records": 50}


def decided(bench: Bench) -> Any:
    artifact = bench.flywheel.artifacts.require(DECISION, TICKETS)
    return orjson.loads((artifact.path / DECISION_FILE).read_bytes())


def spent_in_all(bench: Bench) -> float:
    """What all decisions ever published spent: each comparison counts once, at the highest level it was judged at."""
    levels: dict[str, float] = {}
    for artifact in bench.flywheel.artifacts.history(DECISION, TICKETS):
        evidence = orjson.loads((artifact.path / DECISION_FILE).read_bytes())["evidence"]
        if evidence["look"] is not None:
            levels[evidence["comparison"]] = max(evidence["look"]["alpha"], levels.get(evidence["comparison"], 0.0))
    return sum(levels.values())


def changes(bench: Bench) -> list[Any]:
    artifact = bench.flywheel.artifacts.require(CATALOG, EVERYTHING)
    found: list[Any] = orjson.loads((artifact.path / CATALOG_FILE).read_bytes())["history"]
    return found


def test_an_eval_set_made_larger_smaller_and_larger_again_spends_alpha_once(bench: Bench) -> None:
    starts(bench, looks=[20, 40], eval_size=25)
    # What is held out is a share of the records that was fixed at the first build.
    bench.ingest(400, seed=9)
    for eval_size in (25, 60, 25):
        sized(bench, eval_size)
        assert bench.turn().ok
    bench.ingest(60, seed=8)
    sized(bench, 60)
    assert bench.turn().ok
    assert decided(bench)["evidence"]["rows"] > 40
    assert spent_in_all(bench) == pytest.approx(0.05, abs=1e-12)


def test_gates_there_and_back_lose_no_line_of_the_catalogs_history(bench: Bench) -> None:
    starts(bench)
    told = changes(bench)
    for margin in (0.25, 0.2, 0.3):
        gated(bench, margin)
        assert bench.turn().ok
        now = changes(bench)
        assert now[: len(told)] == told and len(now) > len(told)
        told = now


def test_datasets_there_and_back_are_built_on_the_current_ones_and_nothing_is_trained_again(bench: Bench) -> None:
    starts(bench, eval_size=25)
    first = bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    sized(bench, 60)
    bench.turn()
    asked, trained = bench.platform.questions, list(bench.platform.trained)
    sized(bench, 25)
    report = bench.turn()
    assert report.ok
    again = bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    assert again.data_version == first.data_version
    assert bench.platform.trained == trained and bench.platform.questions == asked


class KilledWorkers(InlineWorkers):
    """Workers of which those of one batch die before they can say anything, as under `kill -9` or when memory runs out."""

    def __init__(self, bench: Bench, partition: Partition, lane: Lane) -> None:
        super().__init__(bench.instance, bench.defs)
        self._killed = (partition, lane)

    def wait(self) -> list[tuple[Batch, bool]]:
        if self._waiting[0][0].identity == self._killed:
            return [(self._waiting.pop(0)[0], False)]
        return super().wait()


def turn_with_a_kill(bench: Bench) -> RunReport:
    workers = KilledWorkers(bench, Partition("tickets", "tiny"), Lane.EXAMINE)
    return turn(bench.instance, bench.flywheel, workers, Choice(), lambda message: None)


def two_candidates(bench: Bench) -> None:
    bench.platform.answers = right
    gated(bench, 0.2, [20, 40])
    sized(bench, 25)
    bench.ingest(240)


def looks_of(bench: Bench) -> list[Look]:
    return list(counted(bench.flywheel.looks.entries("tickets")))


def test_a_hole_of_a_killed_worker_takes_no_look_and_is_filled_by_the_next_turn(bench: Bench) -> None:
    two_candidates(bench)
    report = turn_with_a_kill(bench)
    assert not report.ok and "was killed" in report.failures["evals/base of tickets x tiny"]
    assert looks_of(bench) == []
    assert any(hole.asset == DECISION and "was killed" in hole.reason for hole in report.holes)
    assert bench.turn().ok
    assert [look.number for look in looks_of(bench)] == [1]
    assert decided(bench)["evidence"]["holes"] == []


def test_what_is_killed_every_time_holds_the_others_up_for_three_turns_only(bench: Bench) -> None:
    two_candidates(bench)
    for _ in range(2):
        turn_with_a_kill(bench)
        assert looks_of(bench) == []
    turn_with_a_kill(bench)
    assert [look.number for look in looks_of(bench)] == [1]
    assert {hole["state"] for hole in decided(bench)["evidence"]["holes"]} == {"failed"}


def test_a_cell_that_failed_for_a_reason_is_a_hole_and_the_rest_is_decided(bench: Bench) -> None:
    two_candidates(bench)
    bench.platform.train_error = {"tiny": RuntimeError("out of memory: lower training.batch_size")}
    bench.turn()
    assert [look.number for look in looks_of(bench)] == [1]
    assert [hole["variant"] for hole in decided(bench)["evidence"]["holes"]] == ["customized"]


def test_a_comparison_made_by_hand_before_a_cell_has_ended_takes_no_look(bench: Bench) -> None:
    two_candidates(bench)
    bench.turn(candidates=("small",))
    for asset in (graph.COMPARISON, DECISION):
        made = dg.materialize(
            list(bench.defs.resolve_asset_graph().assets_defs),
            selection=[asset_key(asset)],
            partition_key="tickets",
            instance=bench.instance,
        )
        assert made.success
    assert looks_of(bench) == []
    assert decided(bench)["verdict"] == "inconclusive"
    assert any("tiny (base)" in reason and "still to be evaluated" in reason for reason in decided(bench)["reasons"])
    assert bench.turn().ok
    assert [look.number for look in looks_of(bench)] == [1]
