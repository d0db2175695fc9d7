"""The whole loop through Dagster, with models faked: what is made, what is not made again, and what a failure leaves."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.assets.distribution import CATALOG_FILE
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.metrics import metric_names
from flywheel_assets.core.rows import Answer, EvalRow, Variant, WorkloadType
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.sample_plan import sample_size_plan
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.core.formats.rows import XLAM
from tests.e2e.own_traffic import write_json_records, write_text_records, write_ticket_records
from tests.fake_platform import right

CELLS = (Partition("tickets", "small"), Partition("tickets", "tiny"))
CUSTOMIZED = graph.EVALS[Variant.CUSTOMIZED]


def leaderboard(comparison: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((comparison / "leaderboard.csv").read_text().splitlines()))


def states(flywheel: Flywheel) -> dict[str, dict[str, str]]:
    cells = status_of(flywheel)["workloads"]["tickets"]["cells"]
    return {name: {variant: entry["state"] for variant, entry in cell.items()} for name, cell in cells.items()}


def catalog(flywheel: Flywheel) -> Any:
    return json.loads((flywheel.artifacts.require(graph.CATALOG, Partition()).path / CATALOG_FILE).read_text())


def test_records_become_a_decision_and_every_step_shows_in_dagster(bench: Bench) -> None:
    bench.ingest(300)
    report = bench.turn()
    assert report.ok, (report.failures, report.holes)
    status = status_of(bench.flywheel)["workloads"]["tickets"]
    assert status["type"] == "tool_calling"
    assert status["records"] == 300
    assert states(bench.flywheel) == {
        name: dict.fromkeys(("base", "prefixed", "customized"), "ok") for name in ("small", "tiny")
    }
    assert status["cells"]["small"]["base"]["scores"]["function_name"]["value"] == 0.0
    assert status["cells"]["small"]["customized"]["scores"]["function_name"]["value"] == 1.0
    assert status["decision"]["verdict"] in ("promote", "keep", "inconclusive")
    assert set(catalog(bench.flywheel)["workloads"]) == {"tickets"}
    for node in graph.NODES:
        if node.name in (graph.TRACES, graph.VALIDATION_EVAL, graph.TEACHER_EVAL, graph.PUBLISHED_ADAPTER):
            continue
        assert bench.instance.get_latest_materialization_event(asset_key(node.name)) is not None, node.name
    assert bench.platform.deployed_now == 0


def test_comparison_and_decision_bring_a_report_and_show_its_pictures_in_dagster(bench: Bench) -> None:
    bench.content["candidates"] = bench.content["candidates"][:1]
    bench.platform.answers = lambda candidate, variant, row: row.reference if row.row_id[-1] < "c" else Answer("no")
    bench.ingest(120)
    assert bench.turn().ok
    for name in (graph.COMPARISON, graph.DECISION):
        artifact = bench.flywheel.artifacts.require(name, Partition("tickets"))
        page = (artifact.path / "report.html").read_text(encoding="utf-8")
        assert "<h1>tickets: may a small model replace the big one?</h1>" in page
        event = bench.instance.get_latest_materialization_event(asset_key(name))
        assert event is not None and event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        assert shown["report to open in a browser"].value == str(artifact.path / "report.html")
        for picture, kind in (("leaderboard", "png"), ("by suite", "png"), ("cost against quality", "svg+xml")):
            assert f"](data:image/{kind};base64," in str(shown[picture].value)
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, Partition("tickets")).path
    assert {path.name for path in comparison.glob("*.csv")} == {"leaderboard.csv", "single_turn.csv", "against_teacher.csv"}
    decision = (bench.flywheel.artifacts.require(graph.DECISION, Partition("tickets")).path / "report.html").read_text()
    assert "What would change the verdict" in decision and "still loses" in decision


def test_a_second_turn_makes_nothing_and_asks_no_model(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    asked = bench.platform.questions
    report = bench.turn()
    assert report.materialized == []
    assert report.ok
    assert bench.platform.questions == asked


def test_a_perfect_candidate_on_enough_rows_is_promoted_and_waits_for_a_person(bench: Bench) -> None:
    bench.platform.answers = right
    bench.content["split"] = {"eval_size": 400, "min_total_records": 50}
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.1}]}
    bench.ingest(900)
    bench.turn()
    decision = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]
    assert decision["verdict"] == "promote", decision
    assert decision["approved"] is False
    entry = catalog(bench.flywheel)["workloads"]["tickets"]
    assert (entry["candidate"], entry["approved"]) == (decision["candidate"], False)


def test_a_changed_gate_decides_again_without_asking_a_model(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    asked = bench.platform.questions
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.3}]}
    report = bench.turn()
    assert report.materialized == ["decision of tickets", "model_catalog of everything"]
    assert bench.platform.questions == asked


def test_a_failed_training_leaves_the_other_cell_alone_and_is_shown(bench: Bench) -> None:
    bench.ingest(120)
    bench.platform.train_error = {"tiny": RuntimeError("out of memory: lower training.batch_size")}
    report = bench.turn()
    assert not report.ok
    assert report.failures["adapter of tickets x tiny"] == "out of memory: lower training.batch_size"
    assert states(bench.flywheel)["small"]["customized"] == "ok"
    assert states(bench.flywheel)["tiny"] == {"base": "ok", "prefixed": "ok", "customized": "failed"}
    reasons = " ".join(status_of(bench.flywheel)["workloads"]["tickets"]["decision"]["reasons"])
    assert "tiny (customized) is failed" in reasons


def test_a_repaired_cell_is_made_and_compared_and_the_others_are_not_made_again(bench: Bench) -> None:
    bench.ingest(120)
    bench.platform.train_error = {"tiny": RuntimeError("out of memory")}
    bench.turn()
    bench.platform.train_error = {}
    bench.platform.trained.clear()
    report = bench.turn()
    assert report.ok
    assert bench.platform.trained == ["tiny"]
    assert "comparison of tickets" in report.materialized


def test_more_errors_than_accepted_fail_the_check_and_are_asked_again_next_time(bench: Bench) -> None:
    bench.ingest(120)

    def flaky(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        return None if candidate == "small" and variant is Variant.BASE else row.reference

    bench.platform.answers = flaky
    report = bench.turn()
    assert "rows errored" in report.failures["evals/base of tickets x small"]
    assert states(bench.flywheel)["small"]["base"] == "failed"
    bench.platform.answers = right
    assert bench.turn().ok
    assert states(bench.flywheel)["small"]["base"] == "ok"


def test_a_third_candidate_behind_a_url_reaches_the_comparison_with_customized_skipped(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    bench.platform.trained.clear()
    url = {"id": "hosted", "model": "http://127.0.0.1:9/v1", "engine": "openai", "trainable": False}
    bench.content["candidates"] = [*bench.content["candidates"], url]
    report = bench.turn()
    assert report.ok
    assert _unsuccessful(bench) == []
    assert bench.platform.trained == []
    assert states(bench.flywheel)["hosted"] == {"base": "ok", "prefixed": "ok", "customized": "skipped"}
    hosted = status_of(bench.flywheel)["workloads"]["tickets"]["cells"]["hosted"]
    assert "cannot load our adapter" in hosted["customized"]["reason"]


def _unsuccessful(bench: Bench) -> list[str]:
    """Runs that the UI would show in red."""
    return [run.job_name for run in bench.instance.get_runs() if not run.is_success]


def test_checks_of_a_skipped_asset_pass_with_the_reason_why_they_do_not_apply(bench: Bench) -> None:
    bench.ingest(120)
    bench.content["finetune"] = {"mode": "never"}
    bench.turn()
    key = dg.AssetCheckKey(asset_key(graph.EVALS[Variant.CUSTOMIZED]), "served_matches_trained")
    latest = bench.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.event is not None
    evaluation = latest.event.dagster_event.asset_check_evaluation_data
    assert evaluation.passed and evaluation.description.startswith("Not applicable: ")


def test_a_workload_without_candidates_is_prepared_and_not_decided(bench: Bench) -> None:
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", "workloads": ["others"]}]
    bench.ingest(120)
    report = bench.turn()
    assert report.ok
    assert "datasets/base of tickets" in report.materialized
    assert not any(made.startswith(("comparison", "decision")) for made in report.materialized)


def test_too_few_records_are_refused_with_how_many_are_missing_and_a_failed_check(bench: Bench) -> None:
    bench.ingest(20)
    report = bench.turn()
    assert not report.ok
    assert "30 more" in report.failures["datasets/base of tickets"]
    assert all(what.startswith("datasets/") for what in report.failures)
    key = dg.AssetCheckKey(asset_key(graph.BASE), "enough_records")
    latest = bench.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.event is not None


def test_new_records_extend_the_datasets_and_never_move_a_row(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    before = _sides(bench.flywheel)
    bench.ingest(60, seed=8)
    assert bench.turn().ok
    after = _sides(bench.flywheel)
    assert len(after) > len(before)
    moved = [row for row, side in before.items() if side and after[row] and after[row] != side]
    assert moved == []


def _sides(flywheel: Flywheel) -> dict[str, str | None]:
    import pyarrow.parquet as pq

    folder = flywheel.artifacts.require(graph.BASE, Partition("tickets")).path
    return {row["row_id"]: row["side"] for row in pq.read_table(folder / "rows.parquet").to_pylist()}


@pytest.mark.parametrize(
    ("mode", "threshold", "state"), [("never", 0.9, "skipped"), ("if_needed", 0.9, "ok"), ("if_needed", 0.0, "skipped")]
)
def test_finetune_modes(bench: Bench, mode: str, threshold: float, state: str) -> None:
    bench.ingest(120)
    bench.content["finetune"] = {"mode": mode, "metric": "function_name", "threshold": threshold}
    assert bench.turn().ok
    assert _unsuccessful(bench) == []
    assert states(bench.flywheel)["small"]["customized"] == state
    assert bool(bench.platform.trained) is (state == "ok")
    if state == "skipped":
        adapter = bench.flywheel.artifacts.require(graph.ADAPTER, CELLS[0])
        assert adapter.reason is not None and adapter.reason.startswith("not fine-tuned: ")


@pytest.mark.parametrize(
    "cannot", [{"trainable": False}, {"engine": "openai", "model": "http://127.0.0.1:9/v1"}], ids=["untrainable", "remote"]
)
def test_validation_rows_are_not_asked_of_what_cannot_be_fine_tuned(bench: Bench, cannot: dict[str, Any]) -> None:
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", **cannot}]
    bench.content["finetune"] = {"mode": "if_needed", "metric": "function_name"}
    bench.ingest(120)
    assert not [name for name in bench.turn().materialized if name.startswith(graph.VALIDATION_EVAL)]
    assert states(bench.flywheel)["small"]["customized"] == "skipped"


def test_a_version_from_before_is_pointed_to_again_and_not_computed(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    bench.content["training"] = {"epochs": 2}
    bench.turn()
    bench.platform.trained.clear()
    bench.content["training"] = {"epochs": 1}
    assert bench.turn().ok
    assert bench.platform.trained == []


def test_a_lost_event_is_told_again_without_computing(bench: Bench, instance: DagsterInstance) -> None:
    bench.ingest(120)
    bench.turn()
    asked = bench.platform.questions
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, Partition("tickets"))
    instance.wipe_assets([asset_key(graph.COMPARISON)])
    report = bench.turn()
    # What is below waits in the same run and finds that nothing changed.
    assert report.materialized == ["comparison of tickets", "decision of tickets"]
    assert bench.flywheel.artifacts.require(graph.COMPARISON, Partition("tickets")) == comparison
    assert bench.platform.questions == asked


def test_an_asset_without_its_upstream_says_what_to_do(bench: Bench) -> None:
    bench.ingest(120)
    bench.instance.add_dynamic_partitions("workload", ["tickets"])
    job = bench.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=bench.instance,
        asset_selection=[asset_key(graph.ADAPTER)],
        partition_key=partition_key(CELLS[0]),
        raise_on_error=False,
    )
    failure = result.all_events[-1].message + str(
        [event.event_specific_data for event in result.all_events if event.is_step_failure]
    )
    assert "datasets/train of tickets (not made yet)" in failure
    assert "flywheel run tickets" in failure


def test_the_row_plan_uses_the_discordance_that_was_seen(bench: Bench) -> None:
    bench.ingest(120)
    before = sample_size_plan(bench.flywheel, "tickets", None)
    # Nothing was looked at yet: which gates there are is not guessed.
    assert before["type"] is None and [(need["gate"], need["observed"]) for need in before["gates"]] == [
        ("any metric", False)
    ]
    bench.turn()
    after = sample_size_plan(bench.flywheel, "tickets", 0.02)
    assert after["type"] == "tool_calling" and {need["margin"] for need in after["gates"]} == {0.02}
    assert all(need["observed"] and need["rows"] > 0 for need in after["gates"])


def test_plan_status_and_the_decision_ask_for_the_same(bench: Bench) -> None:
    bench.ingest(200)
    bench.turn()
    decision = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]
    planned = sample_size_plan(bench.flywheel, "tickets", None)
    decided = bench.flywheel.artifacts.require(graph.DECISION, Partition("tickets")).path / "decision.json"
    needs = json.loads(decided.read_text())["evidence"]["needs"]
    assert decision["verdict"] == "inconclusive" and decision["needed_rows"] == planned["eval_rows_needed"] > 0
    assert decision["needed_records"] == planned["records_needed"] == needs["records"] is not None
    assert planned["gates"] == needs["gates"]
    said = " ".join(decision["reasons"])
    assert all(sentence in said for sentence in planned["what_now"])


def test_a_candidate_that_is_no_longer_configured_is_not_planned_for(bench: Bench) -> None:
    bench.ingest(200)
    bench.turn()
    bench.content["candidates"] = [dict(entry) for entry in bench.content["candidates"] if entry["id"] == "tiny"]
    planned = sample_size_plan(bench.flywheel, "tickets", None)
    assert planned["about"].startswith("tiny ") and planned["arms"] == 3


def test_a_text_workload_is_scored_by_f1_and_decided(bench: Bench) -> None:
    ingest([write_text_records(bench.folder / "text.jsonl", 120, workload="answers")], bench.flywheel.traces)
    assert bench.turn().ok
    status = status_of(bench.flywheel)["workloads"]["answers"]
    assert status["type"] == "generic"
    assert set(status["cells"]["small"]["base"]["scores"]) == {"f1", "exact_match", "rouge_l"}
    assert status["cells"]["small"]["customized"]["scores"]["f1"]["value"] == 1.0
    assert status["decision"]["verdict"] in ("promote", "keep", "inconclusive")


def _invents_a_field(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """Right once customized; before, one field too many, and every other answer in a code fence."""
    if variant is Variant.CUSTOMIZED:
        return row.reference
    said = json.dumps({**json.loads(row.reference.content or ""), "note": "urgent"})
    return Answer(f"```json\n{said}\n```" if int(row.row_id, 16) % 2 else said)


def test_a_structured_workload_is_scored_by_its_fields_and_decided(bench: Bench) -> None:
    bench.platform.answers = _invents_a_field
    bench.content["split"] = {"eval_size": 200, "min_total_records": 50}
    bench.content["decision"] = {"gates": [{"metric": "field_f1", "margin": 0.1}, {"metric": "schema_valid", "margin": 0.1}]}
    bench.content["prices"] = {"small": {"prompt": 0.1, "completion": 0.3}, "big-model": {"prompt": 5, "completion": 20}}
    ingest([write_json_records(bench.folder / "json.jsonl", 600, workload="extract")], bench.flywheel.traces)
    assert bench.turn().ok
    status = status_of(bench.flywheel)["workloads"]["extract"]
    assert status["type"] == "structured"
    scores = {variant: status["cells"]["small"][variant]["scores"] for variant in ("base", "customized")}
    assert set(scores["base"]) == set(metric_names(WorkloadType.STRUCTURED))
    assert 0 < scores["base"]["field_precision"]["value"] < scores["base"]["json_valid"]["value"] < 1
    assert scores["base"]["schema_valid"]["value"] == 0.0
    assert {score["value"] for score in scores["customized"].values()} == {1.0}
    assert (status["decision"]["verdict"], status["decision"]["variant"]) == ("promote", "customized")
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, Partition("extract")).path
    assert all("field_f1" in path.read_text() for path in comparison.glob("*.md"))
    assert "small,customized,all,all,field_f1,1.0," in (comparison / "structured_quality.csv").read_text()
    costs = {line["candidate"]: float(line["cost_per_1k_usd"] or "nan") for line in leaderboard(comparison)}
    # The fake platform reports five tokens each way, the teacher's records 400 and 100.
    assert costs == pytest.approx({"(reference)": 4.0, "small": 0.002, "tiny": math.nan}, nan_ok=True)


def test_the_settings_overrule_the_type_of_a_workload_and_it_is_scored_anew(bench: Bench) -> None:
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    ingest([write_json_records(bench.folder / "json.jsonl", 120, workload="extract")], bench.flywheel.traces)
    assert bench.turn().ok
    assert status_of(bench.flywheel)["workloads"]["extract"]["cells"]["small"]["base"]["cost_per_1k_usd"] is None
    # By the default gates of structured workloads.
    status = status_of(bench.flywheel)["workloads"]["extract"]
    assert status["type"] == "structured" and status["decision"]["verdict"] in ("promote", "keep", "inconclusive")
    bench.content["workloads"] = {"extract": {"workload_type": "generic"}}
    bench.content["prices"] = {"small": {"prompt": 100, "completion": 100}}
    assert bench.turn().ok
    status = status_of(bench.flywheel)["workloads"]["extract"]
    assert status["type"] == "generic"
    assert set(status["cells"]["small"]["base"]["scores"]) == set(metric_names(WorkloadType.GENERIC))
    assert status["cells"]["small"]["base"]["cost_per_1k_usd"] == pytest.approx(1.0)
    assert status["decision"]["stale"] is None


def test_turning_one_workload_updates_the_catalog_though_another_is_stale(bench: Bench) -> None:
    bench.ingest(120)
    bench.ingest(120, workload="other")
    report = bench.turn("tickets")
    assert report.ok
    assert set(catalog(bench.flywheel)["workloads"]) == {"tickets"}
    assert not any("other" in name for name in report.materialized)
    assert bench.turn().ok
    assert set(catalog(bench.flywheel)["workloads"]) == {"tickets", "other"}


def test_a_workload_with_images_fails_fast_with_the_reason(bench: Bench) -> None:
    path = bench.folder / "images.jsonl"
    records = []
    for i in range(80):
        content = [{"type": "text", "text": f"what is {i}?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
        records.append(
            {
                "timestamp": 1_790_000_000 + i,
                "workload_id": "vision",
                "client_id": "c",
                "request": {"messages": [{"role": "user", "content": content}]},
                "response": {"choices": [{"message": {"role": "assistant", "content": "a cat"}}]},
            }
        )
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    ingest([path], bench.flywheel.traces)
    report = bench.turn()
    assert not report.ok
    assert any("image" in hole.reason for hole in report.holes)
    assert not report.failures, "the check said why, once"
    assert not any("datasets" in name for name in report.materialized)


def test_a_tool_that_was_not_there_when_it_was_decided_warns_of_drift(bench: Bench) -> None:
    bench.content["candidates"] = bench.content["candidates"][:1]
    bench.ingest(120)
    bench.turn()
    assert drift(bench) == (True, "Nothing is decided yet that could be compared with.")
    bench.ingest(60, seed=8)
    bench.turn()
    began = "60 records since the decision that stood when this turn began"
    assert drift(bench) == (True, f"{began}, distributed as before.")
    path = write_ticket_records(bench.folder / "more.jsonl", 40, workload="tickets", seed=9)
    path.write_text(path.read_text().replace("refund_order", "escalate"))
    ingest([path], bench.flywheel.traces)
    report = bench.turn()
    passed, message = drift(bench)
    assert not passed
    assert "new tools: escalate" in message
    # A warning: everything downstream was made again, decision included.
    assert "decision of tickets" in report.materialized


def test_a_data_set_that_is_imported_to_train_on_is_no_drift_of_the_traffic(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.content["candidates"] = bench.content["candidates"][:1]
    bench.ingest(120)
    bench.turn()
    path = bench.folder / "bought.jsonl"
    path.write_text("".join(json.dumps({**XLAM, "query": f"Is article {n} in store 3?"}) + "\n" for n in range(40)))
    ingest([path], bench.flywheel.traces, format_name="xlam", default_workload="tickets")
    bench.turn()
    began = "0 records since the decision that stood when this turn began"
    assert drift(bench) == (True, f"{began}; 30 are needed to say anything.")

    # Another release of the profile counts other things.
    older = graph.BY_NAME[graph.PROFILE]
    monkeypatch.setattr(graph, "BY_NAME", {**graph.BY_NAME, graph.PROFILE: replace(older, code_version="next")})
    bench.ingest(60, seed=8)
    bench.turn()
    passed, message = drift(bench)
    assert passed and "was made on a profile of another release" in message


def drift(bench: Bench) -> tuple[bool, str]:
    key = dg.AssetCheckKey(asset_key(graph.PROFILE), "drift")
    latest = bench.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.event is not None
    evaluation = latest.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    return evaluation.passed, str(evaluation.description)
