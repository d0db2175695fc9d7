"""The exam through the whole loop: its terms are told on every page, and turning them trains nothing anew."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.datasets.assignment import SPLIT_FILE
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.inputs import settings_slice
from flywheel_assets.settings import parse_settings
from tests.assets.conftest import Bench

TICKETS = Partition("tickets")
# What datasets read of `split` before an exam could be planned or drawn in proportion.
READ_BEFORE = {
    "eval_size": 40,
    "val_ratio": 0.1,
    "min_total_records": 50,
    "limit": None,
    "random_seed": 0,
    "strategy": "random",
    "rare_class_rows": 5,
}


def exam_of(bench: Bench) -> Any:
    return bench.flywheel.artifacts.require(graph.BASE, TICKETS).summary["exam"]


def test_a_new_workload_plans_its_exam_and_says_so_where_people_look(bench: Bench) -> None:
    bench.content["split"] = {"min_total_records": 50}
    bench.ingest(300)
    assert bench.turn().ok
    exam = exam_of(bench)
    assert exam["auto"] and exam["note"]
    assert (exam["draw"], exam["max_rows_per_conversation"]) == ("proportional", 3)
    base = bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    assert base.summary["eval_share"] == 0.3
    assert exam["eval_side_rows"] == base.summary["eval_rows"] + exam["not_drawn"] + exam["over_limit"]
    compared = bench.flywheel.artifacts.require(graph.COMPARISON, TICKETS)
    assert orjson.loads((compared.path / "comparison.json").read_bytes())["exam"] == exam
    event = bench.instance.get_latest_materialization_event(asset_key(graph.BASE))
    assert event is not None and event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert shown["drawn"].value == "proportional, at most 3 rows of one conversation"
    assert exam["note"] in str(shown["size of the exam"].value)


def test_another_draw_is_remarked_and_trains_nothing_anew(bench: Bench) -> None:
    bench.content["split"] = {"eval_size": 40, "eval_share": 0.5, "min_total_records": 50}
    bench.ingest(300)
    assert bench.turn().ok
    trained, before = list(bench.platform.trained), {row["row_id"] for row in eval_rows(bench)}
    bench.content["split"]["draw"] = "balanced"
    assert bench.turn().ok
    assert {row["row_id"] for row in eval_rows(bench)} != before
    assert bench.platform.trained == trained
    reasons = bench.flywheel.artifacts.require(graph.DECISION, TICKETS).summary["reasons"]
    assert "Rows were drawn evenly over tools: means and gates are about that mix, not about the traffic." in reasons


def eval_rows(bench: Bench) -> list[Any]:
    base = bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    return [orjson.loads(line) for line in (base.path / "eval_data.jsonl").read_bytes().splitlines()]


def test_datasets_of_a_home_that_set_its_exam_are_not_made_again(bench: Bench) -> None:
    settings = parse_settings(
        {**bench.content, "split": {"eval_size": 40, "max_eval_calls": 77}}, home=bench.folder / "home", root=bench.folder
    )
    for asset in (graph.BASE, graph.TRAIN):
        assert settings_slice(settings, asset, TICKETS)["split"] == READ_BEFORE


def test_a_home_that_began_before_keeps_its_rows_and_their_version(bench: Bench) -> None:
    bench.content["split"] = {"eval_size": 60, "draw": "balanced", "max_rows_per_conversation": 1000}
    bench.ingest(400)
    assert bench.turn().ok
    base = bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    content = orjson.loads((base.path / SPLIT_FILE).read_bytes())
    new = {"draw", "max_rows_per_conversation", "eval_size", "looks", "note"}
    (base.path / SPLIT_FILE).write_bytes(orjson.dumps({key: value for key, value in content.items() if key not in new}))

    bench.content["split"] = {}
    assert bench.turn().ok
    exam, kept = exam_of(bench), bench.flywheel.artifacts.require(graph.BASE, TICKETS)
    assert (exam["eval_size"], exam["draw"], exam["max_rows_per_conversation"]) == (100, "balanced", None)
    # As the release before made it: of the rows and the type alone, so that its evaluations stand.
    rows_and_type = f"{kept.summary['base_version']} tool_calling"
    assert kept.data_version == hashlib.sha256(rows_and_type.encode()).hexdigest()[:32]
    asked = bench.platform.questions
    bench.content["split"] = {"eval_size": 100}
    assert bench.turn().ok
    assert bench.flywheel.artifacts.require(graph.BASE, TICKETS).version != kept.version
    assert (bench.platform.trained, bench.platform.questions) == (["small", "tiny"], asked)


def test_rows_added_to_rare_classes_go_through_the_loop_and_stay_out_of_the_verdict(bench: Bench) -> None:
    bench.content["split"] = {"eval_size": 20, "eval_share": 0.5, "min_total_records": 50, "rare_class_floor": 8}
    bench.ingest(300)
    assert bench.turn().ok
    added = exam_of(bench)["floor_rows"]
    assert added > 0
    assert len(eval_rows(bench)) == 20 + added
    compared = bench.flywheel.artifacts.require(graph.COMPARISON, TICKETS)
    content = orjson.loads((compared.path / "comparison.json").read_bytes())
    assert len(content["row_ids"]) == 20
    report = content["arms"][0]["report"]
    assert (report["n"], report["suites"]["draw"]["rare_class_floor"]["n"]) == (20, added)
    reasons = bench.flywheel.artifacts.require(graph.DECISION, TICKETS).summary["reasons"]
    assert any(reason.startswith(f"{added} further rows of rare classes count in no mean") for reason in reasons)
