"""Evaluations: what the Evaluator is told, to the letter, and how its rows become predictions."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import pytest

from flywheel_assets.core.rows import Answer, EvalRow, Json, ToolCall
from flywheel_assets.resources.nemo.errors import JobFailed, JobStalled, NemoError
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.resources.nemo.v1.rows import read_predictions
from flywheel_assets.resources.nemo.work import Evaluated, EvaluationOrder, silent
from tests.nemo.server import NemoServer
from tests.resources.nemo.conftest import MODEL, Make

pytestmark = pytest.mark.usefixtures("impatient")
TOOLS = [{"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}]


def text_row(number: int = 0, said: str = "The fan.") -> EvalRow:
    request = {"model": "big", "messages": [{"role": "user", "content": f"case {number}"}], "temperature": 0.7}
    return EvalRow(f"t{number}", f"t{number}", "c", request, Answer(said), "single_turn")


def tool_row(number: int = 0, *, calls: bool = True, **request: Any) -> EvalRow:
    body = {"messages": [{"role": "user", "content": f"case {number}"}], "tools": TOOLS, **request}
    reference = Answer(None, (ToolCall("refund", '{"amount": 3}'),)) if calls else Answer("No.")
    return EvalRow(f"c{number}", f"c{number}", "c", body, reference, "single_turn")


def evaluate(nemo: NemoV1, rows: Sequence[EvalRow], *, prefix: Sequence[Json] = (), judged: bool = False) -> Evaluated:
    order = EvaluationOrder(MODEL, "1.8.3", rows, prefix, judged, "run-1")
    return nemo.evaluator.evaluate(order, lambda done: None, silent)


@pytest.fixture
def nemo(server: NemoServer, make: Make) -> NemoV1:
    server.deployments.standing_models.add(MODEL)
    return make()


def body_of(server: NemoServer) -> Json:
    (call,) = server.asked("POST", "/v1/evaluation/jobs$")
    return dict(call.body)


def test_the_generic_configuration_is_the_reference_workflows_to_the_letter(server: NemoServer, nemo: NemoV1) -> None:
    evaluate(nemo, [text_row()])
    body = body_of(server)
    (dataset,) = server.entities.datasets.values()
    assert dataset["name"].startswith("flywheel-eval-")
    assert body["config"] == {
        "type": "custom",
        "tasks": {
            "chat-completion": {
                "type": "chat-completion",
                "dataset": f"hf://datasets/dfwbp/{dataset['name']}/eval_data.jsonl",
                "params": {"template": {"messages": "{{ item.request.messages | tojson }}"}},
                "metrics": {
                    "f1": {
                        "type": "f1",
                        "params": {"ground_truth": "{{ item.response.choices[0].message.content | trim }}"},
                    }
                },
            }
        },
    }
    url = f"{server.nim_url}/v1/chat/completions"
    assert body["target"] == {"type": "model", "model": {"api_endpoint": {"url": url, "model_id": MODEL}}}


def test_text_answers_come_back_in_order_with_nemos_own_score(server: NemoServer, nemo: NemoV1) -> None:
    server.answer = lambda body: {"role": "assistant", "content": "fan" if "case 1" in str(body) else "a wheel"}
    evaluated = evaluate(nemo, [text_row(0), text_row(1)])
    assert [prediction.answer for prediction in evaluated.predictions] == [Answer("a wheel"), Answer("fan")]
    assert evaluated.predictions[0].prompt_tokens == 11
    assert evaluated.scores == {"chat-completion.f1.f1_score": 0.5}


def test_tool_calls_are_examined_with_the_choice_that_was_logged(server: NemoServer, nemo: NemoV1) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": '{"amount": 3.0}'}}
    server.answer = lambda body: {"role": "assistant", "content": None, "tool_calls": [call]}
    rows = [tool_row(0), tool_row(1), tool_row(2, calls=False), tool_row(3, tool_choice="required")]
    evaluated = evaluate(nemo, rows)
    tasks = body_of(server)["config"]["tasks"]
    assert list(tasks) == ["custom-tool-calling", "custom-tool-calling-2"]
    assert tasks["custom-tool-calling"]["params"]["template"] == {
        "messages": "{{ item.request.messages | tojson }}",
        "tools": "{{ item.request.tools | tojson }}",
        "tool_choice": "auto",
    }
    assert tasks["custom-tool-calling-2"]["params"]["template"]["tool_choice"] == "required"
    accuracy = {
        "type": "tool-calling",
        "params": {"tool_calls_ground_truth": "{{ item.response.choices[0].message.tool_calls | tojson }}"},
    }
    assert tasks["custom-tool-calling"]["metrics"] == {"tool-calling-accuracy": accuracy}
    assert [prediction.row_id for prediction in evaluated.predictions] == ["c0", "c1", "c2", "c3"]
    scores = evaluated.scores
    assert scores["custom-tool-calling.tool-calling-accuracy.function_name_accuracy"] == pytest.approx(2 / 3)
    assert scores["custom-tool-calling-2.tool-calling-accuracy.function_name_and_args_accuracy"] == 1.0


def test_a_row_without_tools_in_a_tool_workload_asks_without_tools(server: NemoServer, nemo: NemoV1) -> None:
    evaluate(nemo, [tool_row(0), tool_row(1), text_row(2)])
    tasks = body_of(server)["config"]["tasks"]
    assert tasks["custom-tool-calling-2"]["params"]["template"] == {"messages": "{{ item.request.messages | tojson }}"}
    assert [sorted(chat) for chat in server.deployments.chats][-1] == ["messages", "model", "temperature"]


def test_a_prefix_stands_where_it_stands_elsewhere(server: NemoServer, nemo: NemoV1) -> None:
    shot = [{"role": "user", "content": "example"}, {"role": "assistant", "content": "shown"}]
    evaluate(nemo, [text_row()], prefix=shot)
    (chat,) = server.deployments.chats
    assert [message["content"] for message in chat["messages"]] == ["example", "shown", "case 0"]


def test_a_remote_judges_key_is_sent_and_kept_nowhere(
    server: NemoServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    server.deployments.standing_models.add(MODEL)
    server.judge = lambda body: "RATING: 1" if "refund" in json.dumps(body) else "RATING: 10"
    judge = {"url": "http://judge/v1/chat/completions", "model_name": "judge", "api_key_env": "JUDGE_KEY"}
    nemo = make(judge=judge)
    evaluated = evaluate(nemo, [tool_row(0)], judged=True)
    metric = body_of(server)["config"]["tasks"]["llm-as-judge"]["metrics"]["correctness"]
    assert metric["params"]["model"]["api_endpoint"] == {
        "url": "http://judge/v1/chat/completions",
        "model_id": "judge",
        "api_key": "s3cret",
    }
    assert evaluated.scores == {"llm-as-judge.correctness.rating": 1.0}
    order = EvaluationOrder(MODEL, "1.8.3", [tool_row(0)], (), True, "run-1")
    assert "s3cret" not in json.dumps(nemo.evaluator.config(order))


def test_a_local_judge_is_the_nim_behind_the_proxy(server: NemoServer, make: Make) -> None:
    server.deployments.standing_models.add(MODEL)
    nemo = make(judge={"type": "local", "model_name": "meta/judge", "tag": "1", "gpus": 1})
    evaluate(nemo, [tool_row(0)], judged=True)
    model = body_of(server)["config"]["tasks"]["llm-as-judge"]["metrics"]["correctness"]["params"]["model"]
    assert model == {"api_endpoint": {"url": f"{server.nim_url}/v1/chat/completions", "model_id": "meta/judge"}}


def test_a_rating_of_ten_is_not_read_as_one(server: NemoServer, make: Make) -> None:
    server.deployments.standing_models.add(MODEL)
    server.judge = lambda body: "RATING: 10"
    nemo = make(judge={"type": "local", "model_name": "meta/judge", "tag": "1", "gpus": 1})
    assert evaluate(nemo, [tool_row(0)], judged=True).scores == {}


def test_the_same_rows_on_the_same_model_are_not_asked_again(server: NemoServer, nemo: NemoV1, make: Make) -> None:
    first = evaluate(nemo, [text_row()])
    assert evaluate(make("another home"), [text_row()]).job == first.job
    assert len(server.deployments.chats) == 1


def test_a_failed_evaluation_says_why_and_is_tried_anew(server: NemoServer, nemo: NemoV1) -> None:
    server.evaluator.fails = "the judge did not answer"
    with pytest.raises(JobFailed, match="the judge did not answer"):
        evaluate(nemo, [text_row()])
    server.evaluator.fails = None
    evaluate(nemo, [text_row()])
    assert len(server.evaluator.jobs) == 2


def test_a_stalled_evaluation_is_ended(server: NemoServer, make: Make) -> None:
    server.deployments.standing_models.add(MODEL)
    server.evaluator.stalls = True
    with pytest.raises(JobStalled, match="no progress"):
        evaluate(make(stall_timeout_minutes=0.01), [text_row()])
    assert server.left() == []


def test_rows_the_archive_lacks_are_errors_of_those_rows(server: NemoServer, nemo: NemoV1) -> None:
    server.evaluator.loses_rows = 1
    first, second = evaluate(nemo, [text_row(0), text_row(1)]).predictions
    assert first.error == "the Evaluator returned no answer for this row"
    assert second.answer is not None


def test_rows_are_found_wherever_the_archive_keeps_them() -> None:
    rows = [{"item": {"row_id": "t0"}, "sample": {"output_text": "fan"}}, {"item": {"row_id": "t1"}, "sample": {}}]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/b/results.json", json.dumps({"tasks": {"x": {"rows": rows}}}))
        archive.writestr("log.txt", "noise")
    first, second = read_predictions(packed.getvalue(), [text_row(0), text_row(1)], "eval-1")
    assert first.answer == Answer("fan")
    assert second.error is not None
    assert "no `response`" in second.error


def test_an_archive_without_rows_names_the_other_way() -> None:
    for content in (b"no archive", b""):
        with pytest.raises(NemoError, match=r"nemo\.evaluation: direct"):
            read_predictions(content, [text_row()], "eval-1")
