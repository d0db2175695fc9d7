import json
import time
from collections import Counter

import orjson
import pytest

from flywheel_assets.core.records.parse import parse_record
from flywheel_assets.core.records.types import Record
from flywheel_assets.demo import records as demo_records
from flywheel_assets.demo.records import as_lines, choose, naming_records, tool_records

QUOTAS = {"simple_python": 4, "irrelevance": 2}


@pytest.fixture
def wheel(write_bfcl, make_question, make_function):
    """Six questions that call a function each and three that must not; one function is offered in both."""
    city = {"city": {"type": "string"}}

    def row(number, name):
        return make_question(f"call-{number}", f"Request {number}.", make_function(name, city, ["city"]))

    calls = [(row(n, f"get.f{n}"), {f"get.f{n}": {"city": [f"Town {n}", "T"]}}) for n in range(6)]
    no_calls = [(make_question(f"no-{n}", f"Other {n}.", make_function(f"get.f{n}", city)), None) for n in range(3)]
    return write_bfcl(simple_python=calls, irrelevance=no_calls)


def test_every_record_is_one_the_log_schema_accepts(wheel):
    chosen = choose(wheel, QUOTAS)
    lines = as_lines(tool_records(chosen) + naming_records(chosen)).splitlines()

    parsed = [parse_record(line, max_bytes=1_000_000, received_at=time.time()) for line in lines]

    assert [type(record) for record in parsed] == [Record] * 12
    assert len({record.id for record in parsed}) == 12


def test_the_choice_is_the_same_every_time_and_keeps_to_its_quotas(wheel):
    assert choose(wheel, QUOTAS) == choose(wheel, QUOTAS)
    assert Counter(item.question.category for item in choose(wheel, QUOTAS)) == QUOTAS


def test_no_record_passes_for_production_traffic(wheel):
    for record in tool_records(choose(wheel, QUOTAS)):
        assert record["source"] == "bfcl-public-benchmark"
        assert record["response"]["model"] == "bfcl-accepted-answers"
        assert "not production traffic" in record["note"]


def test_questions_that_share_a_function_share_a_session_and_no_others_do(wheel):
    chosen = choose(wheel, QUOTAS)

    sessions = {}
    for item in chosen:
        for name in item.question.tool_names:
            sessions.setdefault(name, set()).add(item.session)
    assert all(len(found) == 1 for found in sessions.values())
    assert len({item.session for item in chosen}) == len(sessions)


def test_a_popular_function_cannot_fill_a_side(write_bfcl, make_question, make_function):
    rows = [(make_question(f"q{n}", f"Sing {n}.", make_function("requests.get")), None) for n in range(30)]
    wheel = write_bfcl(irrelevance=rows)

    assert len(choose(wheel, {"irrelevance": 30})) == demo_records.MAX_SESSION_ROWS


def test_the_same_question_asked_twice_is_used_once(write_bfcl, make_question, make_function):
    rows = [(make_question(f"q{n}", text, make_function(f"f{n}")), None) for n, text in enumerate(["Sing it", "sing  IT"])]
    wheel = write_bfcl(irrelevance=rows)

    assert len(choose(wheel, {"irrelevance": 2})) == 1


def test_the_reference_call_carries_the_accepted_answers_beside_it(wheel):
    record = next(r for r in tool_records(choose(wheel, QUOTAS)) if r["labels"]["category"] == "simple_python")
    message = record["response"]["choices"][0]["message"]
    (call,) = message["tool_calls"]

    ((name, parameters),) = record["accepted_answers"][0].items()
    assert call["function"]["name"] == name == record["request"]["tools"][0]["function"]["name"]
    assert json.loads(call["function"]["arguments"]) == {"city": parameters["city"][0]}


def test_a_request_no_function_serves_is_answered_in_words(wheel):
    declined = [r for r in tool_records(choose(wheel, QUOTAS)) if r["labels"]["category"] == "irrelevance"]

    assert len(declined) == 2
    for record in declined:
        message = record["response"]["choices"][0]["message"]
        assert message["content"]
        assert "tool_calls" not in message
        assert "accepted_answers" not in record


def test_the_text_task_offers_the_functions_in_words_and_expects_a_name(wheel):
    for record in naming_records(choose(wheel, QUOTAS)):
        prompt = record["request"]["messages"][0]["content"]
        answer = record["response"]["choices"][0]["message"]["content"]
        assert "tools" not in record["request"]
        assert answer == "none" or f"- {answer}:" in prompt


def test_records_lie_in_the_past_in_the_order_of_the_file(wheel):
    timestamps = [orjson.loads(line)["timestamp"] for line in as_lines(tool_records(choose(wheel, QUOTAS))).splitlines()]

    assert timestamps == sorted(set(timestamps))
