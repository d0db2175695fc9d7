from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall, Variant, WorkloadType
from flywheel_assets.resources.asking import TooManyErrors
from flywheel_assets.resources.evaluation import evaluate
from flywheel_assets.resources.prediction_cache import PredictionCache
from flywheel_assets.resources.serving import Endpoint, EndpointLost, ServerKilled, ServingError
from flywheel_assets.settings import EvaluationSettings
from tests.fakes import Fault, OpenAIDouble

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PATIENT = EvaluationSettings(concurrency=4, timeout_s=10, max_retries=2, max_tokens=32, max_error_share=1)


@pytest.fixture
def double() -> Iterator[OpenAIDouble]:
    with OpenAIDouble() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.resources.asking._FIRST_PAUSE_S", 0.01)


def row(number: int, **request: Any) -> EvalRow:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"question {number}"}]
    return EvalRow(
        row_id=f"row-{number}",
        trace_id=f"trace-{number}",
        cluster=f"c{number}",
        request={"model": "teacher", "messages": messages, **request},
        reference=Answer("ok"),
        suite_turns="single",
    )


def endpoint_of(double: OpenAIDouble, **changes: Any) -> Endpoint:
    fixed: dict[str, Any] = {
        "base_url": double.url,
        "model": "double",
        "engine_build": "double 1",
        "model_identity": "m",
        "template_identity": "t",
    }
    return Endpoint(**{**fixed, **changes})


def test_every_row_gets_its_own_answer_in_the_order_of_the_rows(double: OpenAIDouble) -> None:
    double.answer = lambda body: {"role": "assistant", "content": "about " + body["messages"][-1]["content"]}
    predictions = evaluate(endpoint_of(double), [row(n) for n in range(20)], variant=Variant.BASE, settings=PATIENT)
    assert [p.row_id for p in predictions] == [f"row-{n}" for n in range(20)]
    assert [p.answer.content for p in predictions if p.answer] == [f"about question {n}" for n in range(20)]
    assert all(p.latency_ms and p.prompt_tokens == 11 and p.completion_tokens == 7 and not p.cached for p in predictions)


def test_tool_calls_come_back_with_their_arguments_as_the_model_wrote_them(double: OpenAIDouble) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"'}}
    double.answer = lambda body: {"role": "assistant", "content": None, "tool_calls": [call]}
    (prediction,) = evaluate(endpoint_of(double), [row(1, tools=[WEATHER])], variant=Variant.BASE, settings=PATIENT)
    assert prediction.answer == Answer(None, (ToolCall("weather", '{"city": "Bern"'),))


def test_a_tool_call_the_server_left_in_the_text_stays_text(double: OpenAIDouble) -> None:
    text = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    double.answer = lambda body: {"role": "assistant", "content": text}
    (prediction,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT)
    assert prediction.answer == Answer(text)


def test_a_second_evaluation_asks_the_server_nothing(double: OpenAIDouble, tmp_path: Any) -> None:
    rows = [row(n) for n in range(10)]
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        first = evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=PATIENT, cache=cache)
        assert double.count == len(rows)
        seen: list[tuple[int, int, int, int]] = []
        second = evaluate(
            endpoint_of(double),
            rows,
            variant=Variant.BASE,
            settings=PATIENT,
            cache=cache,
            progress=lambda *a: seen.append(a),
        )
    assert double.count == len(rows)
    assert all(p.cached for p in second)
    assert [dataclasses.replace(p, cached=False) for p in second] == first
    assert seen == [(10, 10, 10, 0)]


def test_answers_of_an_earlier_version_are_scored_anew_and_not_asked_again(double: OpenAIDouble, tmp_path: Any) -> None:
    rows = [row(1), row(2, max_tokens=7), row(3, max_completion_tokens=8)]
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=PATIENT, cache=cache)
    # As entries were before the end of an answer was kept with them.
    with sqlite3.connect(tmp_path / "cache.sqlite") as file:
        file.execute("UPDATE predictions SET value = json_remove(value, '$.knows_end')")
    double.stop()
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        again = evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=PATIENT, cache=cache)
    assert double.count == 3 and all(p.cached for p in again)
    # The double's answers are seven tokens long: one that was allowed no more was cut off.
    assert [p.answer.cut_off for p in again if p.answer] == [None, "length", None]
    scores = score_rows(WorkloadType.TOOL_CALLING, rows, again)
    assert scores["answered"].tolist() == [1.0, 0.0, 1.0] and scores["f1"].tolist() == [1.0, 1.0, 1.0]


def test_an_answer_that_ended_at_its_limit_by_itself_was_not_cut_off(double: OpenAIDouble, tmp_path: Any) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        for _ in range(2):
            (answered,) = evaluate(
                endpoint_of(double), [row(1, max_tokens=7)], variant=Variant.BASE, settings=PATIENT, cache=cache
            )
            assert answered.answer == Answer("ok")
    assert double.count == 1


def test_only_new_rows_are_asked_when_an_eval_set_grows(double: OpenAIDouble, tmp_path: Any) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        evaluate(endpoint_of(double), [row(n) for n in range(5)], variant=Variant.BASE, settings=PATIENT, cache=cache)
        evaluate(endpoint_of(double), [row(n) for n in range(7)], variant=Variant.BASE, settings=PATIENT, cache=cache)
    assert double.count == 7


def test_another_sample_is_asked_as_the_log_says_and_has_an_entry_of_its_own(double: OpenAIDouble, tmp_path: Any) -> None:
    rows = [row(0, temperature=0.7, top_p=0.9), row(1)]
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        for sample in (0, 1, 1):
            evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=PATIENT, cache=cache, sample=sample)
    greedy, sampled = double.chats[:2], sorted(double.chats[2:], key=lambda body: body["messages"][-1]["content"])
    assert double.count == 4
    assert all(body["temperature"] == 0 and "seed" in body for body in greedy)
    assert sampled[0]["temperature"] == 0.7 and sampled[0]["top_p"] == 0.9
    assert "temperature" not in sampled[1] and "seed" not in sampled[1]


def test_an_error_is_not_remembered_and_is_asked_again(double: OpenAIDouble, tmp_path: Any) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        double.faults.append(Fault(status=400))
        (failed,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT, cache=cache)
        (answered,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT, cache=cache)
    assert failed.answer is None and failed.error is not None and failed.error.startswith("HTTP 400: ")
    assert answered.error is None and not answered.cached


def test_a_busy_server_is_asked_again_when_it_says_so(double: OpenAIDouble) -> None:
    double.faults.append(Fault(status=429, retry_after="0.4"))
    started = time.perf_counter()
    (prediction,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT)
    assert prediction.answer == Answer("ok")
    assert time.perf_counter() - started >= 0.4
    assert prediction.latency_ms is not None and prediction.latency_ms < 300, "waiting for a try is not latency"


def test_server_errors_are_tried_as_often_as_the_settings_allow_and_no_oftener(double: OpenAIDouble) -> None:
    double.always = Fault(status=503)
    (prediction,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT)
    assert double.count == 1 + PATIENT.max_retries
    assert prediction.error is not None and prediction.error.startswith("HTTP 503")


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 422])
def test_a_refusal_is_not_tried_again(double: OpenAIDouble, status: int) -> None:
    double.always = Fault(status=status)
    (prediction,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=PATIENT)
    assert double.count == 1
    assert prediction.error is not None and prediction.error.startswith(f"HTTP {status}")


def test_a_slow_server_is_a_time_out_and_tried_again(double: OpenAIDouble) -> None:
    hasty = PATIENT.model_copy(update={"timeout_s": 0.2, "max_retries": 1})
    double.faults.append(Fault(delay_s=0.6))
    (prediction,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=hasty)
    assert prediction.answer == Answer("ok") and double.count == 2
    double.always = Fault(delay_s=0.6)
    (late,) = evaluate(endpoint_of(double), [row(1)], variant=Variant.BASE, settings=hasty)
    assert late.error == "no answer within 0.2 s (evaluation.timeout_s)"


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>proxy</html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": null, "arguments": ""}}]}}]}',
    ],
)
def test_garbage_is_an_error_of_its_row_alone(double: OpenAIDouble, garbage: bytes) -> None:
    double.faults.append(Fault(body=garbage))
    one_by_one = PATIENT.model_copy(update={"concurrency": 1})
    first, second = evaluate(endpoint_of(double), [row(1), row(2)], variant=Variant.BASE, settings=one_by_one)
    assert first.error is not None and first.error.startswith("unusable answer: ")
    assert second.answer == Answer("ok") and double.count == 2


def test_a_key_that_a_server_quotes_back_never_reaches_a_report(double: OpenAIDouble) -> None:
    double.always = Fault(status=403)
    (prediction,) = evaluate(endpoint_of(double, api_key="sk-secret"), [row(1)], variant=Variant.BASE, settings=PATIENT)
    assert prediction.error is not None and "Bearer ***" in prediction.error and "sk-secret" not in prediction.error


def test_an_endpoint_that_dies_ends_the_evaluation_instead_of_a_thousand_error_rows(
    double: OpenAIDouble, tmp_path: Any
) -> None:
    endpoint = endpoint_of(double)

    def die_after_ten(done: int, *_: int) -> None:
        if done == 10:
            double.stop()

    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        started = time.perf_counter()
        with pytest.raises(EndpointLost, match="does not accept connections any more") as lost:
            evaluate(
                endpoint,
                [row(n) for n in range(1000)],
                variant=Variant.BASE,
                settings=PATIENT,
                cache=cache,
                progress=die_after_ten,
            )
        assert time.perf_counter() - started < 30
        assert len(cache) >= 10, "what was answered before is kept"
    assert not isinstance(lost.value, ServerKilled), "what somebody else's server does is not for us to excuse"


def test_a_server_whose_process_is_known_to_be_gone_is_not_tried_again(double: OpenAIDouble) -> None:
    endpoint = endpoint_of(double, fault=lambda: "candidate 'x': the model server was killed")
    double.stop()
    patient = PATIENT.model_copy(update={"max_retries": 50})
    with pytest.raises(ServerKilled, match="the model server was killed"):
        evaluate(endpoint, [row(1)], variant=Variant.BASE, settings=patient)


def test_no_more_requests_are_in_flight_than_the_settings_allow(double: OpenAIDouble) -> None:
    # Long enough that a busy machine still has them in flight together.
    double.always = Fault(delay_s=0.3)
    evaluate(endpoint_of(double), [row(n) for n in range(10)], variant=Variant.BASE, settings=PATIENT)
    assert double.most_at_once == PATIENT.concurrency


def test_no_more_requests_are_in_flight_than_the_server_computes_at_once(double: OpenAIDouble) -> None:
    double.always = Fault(delay_s=0.2)
    evaluate(endpoint_of(double, slots=2), [row(n) for n in range(6)], variant=Variant.BASE, settings=PATIENT)
    assert double.most_at_once == 2


def test_the_variants_of_one_server_differ_by_the_scale_of_the_adapter_only(double: OpenAIDouble) -> None:
    endpoint = endpoint_of(double, adapter_identity="a", can_load_adapter=True)
    for variant in (Variant.BASE, Variant.CUSTOMIZED):
        evaluate(endpoint, [row(1, tools=[WEATHER])], variant=variant, settings=PATIENT)
    base, customized = double.chats
    assert base.pop("lora") == [{"id": 0, "scale": 0.0}] and customized.pop("lora") == [{"id": 0, "scale": 1.0}]
    assert base == customized


def test_a_customized_variant_without_an_adapter_is_refused_before_anything_is_asked(double: OpenAIDouble) -> None:
    with pytest.raises(ServingError, match="started without an adapter"):
        evaluate(endpoint_of(double), [row(1)], variant=Variant.CUSTOMIZED, settings=PATIENT)
    assert double.count == 0


def test_the_prefix_is_sent_between_the_instructions_and_the_question(double: OpenAIDouble) -> None:
    prefix = [{"role": "user", "content": "example"}, {"role": "assistant", "content": "shown"}]
    evaluate(endpoint_of(double), [row(1)], variant=Variant.PREFIXED, prefix_messages=prefix, settings=PATIENT)
    assert [m["content"] for m in double.chats[0]["messages"]] == ["be brief", "example", "shown", "question 1"]


def test_what_breaks_beside_the_questions_reaches_the_caller_as_it_is(double: OpenAIDouble) -> None:
    def full(*_: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        evaluate(endpoint_of(double), [row(n) for n in range(9)], variant=Variant.BASE, settings=PATIENT, progress=full)


def test_progress_counts_answers_reuse_and_errors(double: OpenAIDouble) -> None:
    double.faults.append(Fault(status=400))
    seen: list[tuple[int, int, int, int]] = []
    one_by_one = PATIENT.model_copy(update={"concurrency": 1})
    evaluate(
        endpoint_of(double),
        [row(n) for n in range(3)],
        variant=Variant.BASE,
        settings=one_by_one,
        progress=lambda *a: seen.append(a),
    )
    assert seen == [(1, 3, 0, 1), (2, 3, 0, 1), (3, 3, 0, 1)]


STRICT = PATIENT.model_copy(update={"max_error_share": 0.05})


@pytest.mark.parametrize("status", [400, 503])
def test_an_endpoint_that_only_errors_is_given_up_as_soon_as_too_few_rows_can_be_answered(
    double: OpenAIDouble, status: int
) -> None:
    double.always = Fault(status)
    with pytest.raises(TooManyErrors) as given_up:
        evaluate(endpoint_of(double), [row(n) for n in range(200)], variant=Variant.BASE, settings=STRICT)
    # The eleventh error is one too many; three more rows may be in flight.
    most = 14 * (1 if status == 400 else STRICT.max_retries + 1)
    assert 11 <= double.count <= most
    said = str(given_up.value)
    assert "of 200 rows" in said and "max_error_share" in said and f"HTTP {status}" in said and "\n" not in said


def test_errors_that_are_accepted_end_nothing(double: OpenAIDouble) -> None:
    double.faults.extend([Fault(400)] * 10)
    predictions = evaluate(endpoint_of(double), [row(n) for n in range(200)], variant=Variant.BASE, settings=STRICT)
    assert sum(prediction.error is not None for prediction in predictions) == 10
    assert double.count == 200


def test_what_was_answered_before_the_end_is_kept_and_only_the_rest_is_asked(double: OpenAIDouble, tmp_path: Any) -> None:
    """Answers in flight when the last error came are answers, too."""
    double.answer = lambda body: time.sleep(0.05) or {"role": "assistant", "content": "ok"}
    rows = [row(n) for n in range(40)]
    # Four at once: the first three are refused while the fourth is still being answered.
    double.faults.extend([Fault(400), Fault(400), Fault(400)])
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        with pytest.raises(TooManyErrors, match="the first error: HTTP 400"):
            evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=STRICT, cache=cache)
        kept, asked = len(cache), double.count
        assert kept == asked - 3 and 1 <= kept < 30
        predictions = evaluate(endpoint_of(double), rows, variant=Variant.BASE, settings=STRICT, cache=cache)
        assert double.count == asked + 40 - kept
    assert not any(prediction.error for prediction in predictions)


def test_no_pause_before_another_try_is_waited_out_once_it_is_over(
    double: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel_assets.resources.asking._FIRST_PAUSE_S", 30.0)
    double.faults.extend([Fault(503), Fault(400)])
    started = time.monotonic()
    with pytest.raises(TooManyErrors):
        evaluate(endpoint_of(double), [row(n) for n in range(5)], variant=Variant.BASE, settings=STRICT)
    assert time.monotonic() - started < 10
