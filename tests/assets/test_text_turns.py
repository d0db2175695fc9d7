"""Turns that are answered in words, in the whole loop: a model that answers them with nothing is not promoted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.fake_platform import Rule, right
from tests.fakes import OpenAIDouble
from tests.judges import fair
from tests.recomputed import verify_decision

TICKETS = Partition("tickets")


def texts_as(text: str) -> Rule:
    """The teacher's calls, and this where it answered in words."""

    def rule(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        return row.reference if row.reference.calls_tools else Answer(text)

    return rule


@pytest.fixture
def agent(bench: Bench) -> Bench:
    """The bench with one candidate, and eval rows of which a quarter is answered in words."""
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", "trainable": False}]
    bench.content["split"] = {"eval_size": 400, "min_total_records": 50}
    bench.ingest(900)
    return bench


def decision(bench: Bench) -> dict[str, Any]:
    path = bench.flywheel.artifacts.require(graph.DECISION, TICKETS).path
    return dict(json.loads((path / "decision.json").read_text()))


def shown(bench: Bench) -> dict[str, Any]:
    return dict(status_of(bench.flywheel)["workloads"]["tickets"]["decision"])


@pytest.mark.parametrize("text", ["", '<tool_call>\n{"name": "order_status", "arguments": {}}\n</tool_call>'])
def test_a_model_that_answers_in_no_words_is_not_promoted(agent: Bench, text: str) -> None:
    agent.platform.answers = texts_as(text)
    assert agent.turn().ok
    decided = decision(agent)
    assert decided["verdict"] == "keep"
    assert [gate["metric"] for gate in decided["evidence"]["settings"]["gates"]] == [
        "function_name_and_args",
        "no_call",
        "answered",
    ]
    assert "answered is 0.000 against 1.000" in " ".join(decided["reasons"])
    verify_decision(agent.flywheel.settings.home, "tickets")


def test_a_model_equal_to_the_teacher_is_promoted_and_its_unread_text_is_said(agent: Bench) -> None:
    agent.platform.answers = right
    assert agent.turn().ok
    decided, status = decision(agent), shown(agent)
    assert decided["verdict"] == "promote"
    share = decided["evidence"]["unread_share"]
    assert 0.15 < share < 0.35
    line = f"{share:.0%} of turns are text that no judge or gate read: configure a judge, or a gate on `f1`."
    assert status["unread_share"] == share and status["reasons"].count(line) == 1
    folder = agent.flywheel.artifacts.require(graph.DECISION, TICKETS).path
    assert line in (folder / "report.md").read_text()
    assert line.replace("`", "") in (folder / "report.html").read_text()
    verify_decision(agent.flywheel.settings.home, "tickets")


def test_a_gate_on_the_text_keeps_a_model_that_talks_nonsense(agent: Bench) -> None:
    agent.platform.answers = texts_as("Bananas are blue.")
    agent.content["decision"] = {
        "gates": [{"metric": "function_name_and_args", "margin": 0.1}, {"metric": "f1", "margin": 0.1}]
    }
    assert agent.turn().ok
    assert decision(agent)["verdict"] == "keep" and shown(agent)["unread_share"] == 0.0
    verify_decision(agent.flywheel.settings.home, "tickets")


def test_a_judge_reads_the_text_turns_and_no_others(agent: Bench) -> None:
    agent.platform.answers = texts_as("Bananas are blue.")
    with OpenAIDouble(answer=fair, models=("big-judge",)) as judge:
        agent.content["judge"] = {"model": judge.url, "wait_s": 0, "max_retries": 1}
        assert agent.turn().ok
        asked = [json.loads(body["messages"][-1]["content"]) for body in judge.chats]
    assert {(question["expected"], question["answer"]) for question in asked} == {("You are welcome.", "Bananas are blue.")}
    decided = decision(agent)
    gates = [gate["metric"] for gate in decided["evidence"]["settings"]["gates"]]
    assert gates == ["function_name_and_args", "no_call", "answered", "judge_similarity"]
    assert decided["verdict"] == "keep" and decided["evidence"]["unread_share"] == 0.0
    assert "judge_similarity is 0.000 against 1.000" in " ".join(decided["reasons"])


def test_what_an_older_decision_did_not_say_is_not_known(agent: Bench) -> None:
    agent.platform.answers = right
    assert agent.turn().ok
    file = agent.flywheel.artifacts.require(graph.DECISION, TICKETS).path / "decision.json"
    content = json.loads(file.read_text())
    del content["evidence"]["unread_share"], content["evidence"]["unread"]
    file.chmod(0o644)
    file.write_text(json.dumps(content))
    assert shown(agent)["unread_share"] is None
