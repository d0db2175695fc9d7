"""A judge in the whole loop: its columns are compared and decided on like any other, and nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall, Variant
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.judge.estimate import judging_plan
from flywheel_assets.resources.platform import LocalPlatform
from flywheel_assets.resources.sample_plan import sample_size_plan
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.e2e.own_traffic import write_text_records
from tests.fakes import Fault, OpenAIDouble
from tests.judges import fair, material, says

CELL = Partition("tickets", "small")


@pytest.fixture
def judge() -> Iterator[OpenAIDouble]:
    with OpenAIDouble(answer=fair, models=("big-judge",)) as running:
        yield running


@pytest.fixture
def judged(bench: Bench, judge: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The bench with tool calls judged, one candidate, and a judge behind a URL."""
    monkeypatch.setattr("flywheel_assets.resources.asking._FIRST_PAUSE_S", 0.01)
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    bench.content["evaluation"] = {"tool_eval_type": "judge"}
    bench.content["judge"] = {"model": judge.url, "wait_s": 0, "max_retries": 1}
    return bench


def other_words(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """Right once customized, in other words than the reference; before, it calls nothing."""
    if not row.reference.calls_tools:
        return row.reference
    if variant is not Variant.CUSTOMIZED:
        return Answer("I would rather write Python.")
    call = row.reference.tool_calls[0]
    return Answer(None, (ToolCall(call.name, json.dumps({**json.loads(call.arguments), "note": "urgent"})),))


def forgiving(body: dict[str, Any]) -> dict[str, Any]:
    """A note too many means the same."""
    shown = material(body)
    if "tools" not in shown:
        return fair(body)
    calls = [{**call, "arguments": {**json.loads(call["arguments"])}} for call in shown["answer"]["calls"]]
    for call in calls:
        call["arguments"].pop("note", None)
    return says({"score": int([{**c, "arguments": json.dumps(c["arguments"])} for c in calls] == shown["expected"])})


def base(bench: Bench, variant: str = "base", workload: str = "tickets") -> dict[str, Any]:
    return status_of(bench.flywheel)["workloads"][workload]["cells"]["small"][variant]


def decision(bench: Bench) -> dict[str, Any]:
    path = bench.flywheel.artifacts.require(graph.DECISION, Partition("tickets")).path
    return dict(json.loads((path / "decision.json").read_text()))


def column(bench: Bench, name: str, variant: Variant = Variant.BASE, partition: Partition = CELL) -> list[float | None]:
    folder = bench.flywheel.artifacts.require(graph.EVALS[variant], partition).path
    return pq.read_table(folder / "predictions.parquet").column(name).to_pylist()


def check(bench: Bench, variant: Variant = Variant.BASE) -> tuple[bool, str]:
    key = dg.AssetCheckKey(asset_key(graph.EVALS[variant]), "judged")
    latest = bench.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.event is not None
    found = latest.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    return found.passed, str(found.description)


def test_judged_tool_calls_decide_where_metrics_see_another_wording_as_wrong(judged: Bench, judge: OpenAIDouble) -> None:
    judge.answer = forgiving
    judged.platform.answers = other_words
    judged.content["split"] = {"eval_size": 200, "min_total_records": 50}
    judged.ingest(450)
    report = judged.turn()
    assert report.ok, report.failures
    scores = base(judged, "customized")["scores"]
    assert (scores["function_name_and_args"]["value"], scores["judge_tool_call"]["value"]) == (0.0, 1.0)
    assert base(judged)["scores"]["judge_tool_call"]["value"] == 0.0
    # The default gates: the judge instead of the exact match, and on the rows without a call a judge of what was said.
    gates = decision(judged)["evidence"]["settings"]["gates"]
    expected = ["judge_tool_call", "no_call", "answered", "judge_similarity"]
    assert [gate["metric"] for gate in gates] == expected
    calls = np.array(column(judged, "no_call"), dtype=float)
    verdicts = np.array(column(judged, "judge_tool_call"), dtype=float)
    assert bool(np.all(np.isnan(calls) != np.isnan(verdicts)))
    said = np.array(column(judged, "judge_similarity"), dtype=float)
    assert bool(np.all(np.isnan(said) == np.isnan(calls)))
    # Suites, leaderboard and checks know it like any metric.
    folder = judged.flywheel.artifacts.require(graph.EVALS[Variant.BASE], CELL).path
    assert "judge_tool_call" in json.loads((folder / "report.json").read_text())["suites"]["turns"]["single_turn"]["scores"]
    comparison = judged.flywheel.artifacts.require(graph.COMPARISON, Partition("tickets")).path
    assert "judge_tool_call_low" in (comparison / "leaderboard.csv").read_text().splitlines()[0]
    assert check(judged) == (
        True,
        f"0 of {len(verdicts)} judged rows have no readable verdict (5% is accepted).",
    )
    planned = sample_size_plan(judged.flywheel, "tickets", None)
    assert [need["gate"] for need in planned["gates"]] == expected
    # A margin that so many rows can show.
    asked = judge.count
    judged.content["decision"] = {"gates": [{"metric": "judge_tool_call", "margin": 0.1}]}
    assert judged.turn().materialized == ["decision of tickets", "model_catalog of everything"]
    assert (decision(judged)["verdict"], decision(judged)["variant"]) == ("promote", "customized")
    assert judge.count == asked


def test_a_second_turn_asks_neither_model_nor_judge_and_patience_changes_nothing(judged: Bench, judge: OpenAIDouble) -> None:
    judged.ingest(120)
    judged.turn()
    asked, questions = judge.count, judged.platform.questions
    assert asked > 0
    judged.content["judge"] |= {"concurrency": 1, "wait_s": 7}
    assert judged.turn().materialized == []
    assert (judge.count, judged.platform.questions) == (asked, questions)


def test_a_gate_on_a_judge_column_that_nothing_fills_is_refused_before_anything_is_asked(
    judged: Bench, judge: OpenAIDouble
) -> None:
    judged.content["decision"] = {"gates": [{"metric": "judge_pairwise", "floor": 0.4}]}
    judged.ingest(120)
    report = judged.turn()
    said = " ".join(report.failures.values())
    assert "no judge fills this column of a tool_calling workload (filled: judge_tool_call, judge_similarity)" in said
    assert (judge.count, judged.platform.questions) == (0, 0)


def test_a_judge_that_talks_fails_its_check_and_the_report(judged: Bench, judge: OpenAIDouble) -> None:
    judge.answer = lambda body: says("I think this deserves a 1.")
    judged.ingest(120)
    report = judged.turn()
    assert not report.ok
    assert "judged rows have no readable verdict" in report.failures["evals/base of tickets x small"]
    assert base(judged)["state"] == "failed"
    passed, message = check(judged)
    assert not passed and "the first said 'I think this deserves a 1.'" in message
    assert base(judged)["aggregates"]["judge_unparsable"]["value"] == 1.0
    judged.content["judge"]["max_unparsable_share"] = 1.0
    asked = judge.count
    assert judged.turn().ok
    # Another share judges the reports anew, and what the judge said is known.
    assert judge.count == asked and set(column(judged, "judge_tool_call")) == {None}


def test_a_judge_that_is_lost_fails_the_run_and_the_next_turn_asks_for_the_rest(judged: Bench, judge: OpenAIDouble) -> None:
    judged.content["judge"]["concurrency"] = 1
    judge.faults.extend([Fault()] * 3 + [Fault(status=503)] * 1000)
    judged.ingest(120)
    report = judged.turn()
    (failure,) = [text for text in report.failures.values() if "3 of " in text]
    assert "was lost" in failure and "HTTP 503" in failure and "asks for the rest only" in failure
    judge.faults.clear()
    asked = judge.count
    assert judged.turn().ok
    columns = ("judge_tool_call", "judge_similarity")
    evaluations = [column(judged, name, variant) for variant in Variant for name in columns]
    wanted = sum(verdict is not None for verdicts in evaluations for verdict in verdicts)
    assert 0 < judge.count - asked <= wanted - 3


def test_another_judge_judges_again_and_asks_no_candidate(bench: Bench, judge: OpenAIDouble) -> None:
    with OpenAIDouble(answer=lambda body: {"role": "assistant", "content": "The printer."}) as candidate:
        bench.content["candidates"] = [{"id": "small", "model": candidate.url, "engine": "openai", "trainable": False}]
        bench.content["judge"] = {"model": judge.url, "pairwise": True}
        bench.content["prices"] = {judge.url: {"prompt": 1000, "completion": 1000}}
        bench.platform = LocalPlatform.of(bench.flywheel.settings)  # type: ignore[assignment]
        ingest([write_text_records(bench.folder / "text.jsonl", 120, workload="items")], bench.flywheel.traces)
        assert judging_plan(bench.flywheel, "items") is not None
        assert bench.turn().ok
        cell = Partition("items", "small")
        asked, judged_before = candidate.count, judge.count
        assert judged_before > 0
        first = column(bench, "judge_similarity", partition=cell)
        assert set(first) == {0.0, 1.0} and set(column(bench, "judge_pairwise", partition=cell)) == {0.5}
        versions = bench.flywheel.artifacts.require(graph.EVALS[Variant.BASE], cell).data_version
        plan = judging_plan(bench.flywheel, "items")
        assert plan is not None and plan["columns"] == ["judge_similarity", "judge_pairwise"]
        # Three variants of 40 rows at most, three questions each.
        assert plan["calls"] == 3 * 3 * len(first) and plan["usd"] > 0

        with OpenAIDouble(answer=lambda body: says({"score": 4}), models=("strict",)) as other:
            bench.content["judge"] = {"model": other.url}
            report = bench.turn()
            assert report.ok
            assert "comparison of items" in report.materialized and "decision of items" in report.materialized
            assert column(bench, "judge_similarity", partition=cell) == [pytest.approx(1 / 3)] * len(first)
            assert other.count > 0
        assert (candidate.count, judge.count) == (asked, judged_before)
        assert bench.flywheel.artifacts.require(graph.EVALS[Variant.BASE], cell).data_version != versions

        bench.content["judge"] = {}
        assert bench.turn().ok
        assert "judge_similarity" not in base(bench, workload="items")["scores"]
        assert candidate.count == asked


def test_labels_of_a_person_correct_the_judges_rate_and_new_ones_ask_for_themselves_alone(
    judged: Bench, judge: OpenAIDouble
) -> None:
    def label(number: int) -> dict[str, Any]:
        call = {"tool_calls": [{"function": {"name": "refund_order", "arguments": json.dumps({"order_id": str(number)})}}]}
        request = {"messages": [{"role": "user", "content": f"Refund {number}."}]}
        right = number % 2 == 0
        return {"request": request, "expected": call, "answer": call if right else {"content": "no"}, "label": int(right)}

    path = judged.folder / "labels.jsonl"
    path.write_text("".join(json.dumps(label(number)) + "\n" for number in range(40)))
    judged.content["judge"]["labels"] = "labels.jsonl"
    judged.ingest(120)
    assert judged.turn().ok
    found = base(judged, "customized")["aggregates"]["judge_tool_call_corrected"]
    assert (found["sensitivity"], found["specificity"], found["value"]) == (1.0, 1.0, 1.0)
    assert found["labels"] == {"right": 20, "wrong": 20, "unparsable": 0} and 0.5 < found["low"] < 1.0
    asked = judge.count
    path.write_text(path.read_text() + json.dumps(label(40)) + "\n")
    assert judged.turn().ok
    assert judge.count == asked + 1
    assert base(judged, "customized")["aggregates"]["judge_tool_call_corrected"]["labels"]["right"] == 21


def test_a_local_judge_never_stands_in_memory_beside_the_candidate(judged: Bench, judge: OpenAIDouble) -> None:
    (judged.folder / "judge.gguf").write_text("a larger model")
    own: list[dict[str, Any]] = [
        {"id": "small", "model": "small.gguf"},
        {"id": "big", "model": "judge.gguf", "workloads": []},
    ]
    judged.content["candidates"] = own
    judged.content["judge"] = {"candidate": "big"}
    judged.platform.urls = {"big": judge.url}
    judged.ingest(120)
    assert judged.turn().ok
    assert set(status_of(judged.flywheel)["workloads"]["tickets"]["cells"]) == {"small"}
    assert judge.count > 0 and {body["model"] for body in judge.chats} == {"big"}
    assert (judged.platform.most_deployed, judged.platform.deployed_now) == (1, 0)
    (judged.folder / "judge.gguf").write_text("other weights")
    assert "evals/base of tickets x small" in judged.turn().materialized


def test_validation_rows_are_judged_only_where_the_choice_to_train_looks_at_the_judge(
    judged: Bench, judge: OpenAIDouble
) -> None:
    judged.content["finetune"] = {"mode": "if_needed", "metric": "function_name"}
    judged.ingest(120)
    judged.turn()
    validation = judged.flywheel.artifacts.require(graph.VALIDATION_EVAL, CELL)
    assert "judge_tool_call" not in validation.summary["scores"]
    judged.content["finetune"] = {"mode": "if_needed", "metric": "judge_tool_call"}
    assert judged.turn().ok
    validation = judged.flywheel.artifacts.require(graph.VALIDATION_EVAL, CELL)
    assert validation.summary["scores"]["judge_tool_call"]["value"] == 0.0
    decided = judged.flywheel.artifacts.require(graph.FINETUNE_DECISION, CELL)
    assert "base judge_tool_call on validation rows is 0.000" in (decided.reason or json.dumps(decided.summary))


def test_the_key_of_a_judge_is_in_nothing_that_a_run_leaves_behind(
    judged: Bench, judge: OpenAIDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = "sk-judge-s3cret"
    monkeypatch.setenv("JUDGE_KEY", key)
    judge.key = key
    judged.content["judge"]["api_key_env"] = "JUDGE_KEY"
    # Refused for good, and the double quotes the key it was given.
    judge.faults.append(Fault(status=400))
    judged.content["judge"]["max_unparsable_share"] = 0.5
    judged.ingest(120)
    assert judged.turn().ok
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" or "event" in str(path) for path in files)
    assert [str(path) for path in files if key.encode() in path.read_bytes()] == []
