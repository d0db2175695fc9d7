"""Public benchmark questions written in every format come back as what they were: messages, tools and calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core.formats import BUILT_IN, detect, format_named, formats, read_line
from flywheel_assets.core.records import Record
from flywheel_assets.demo.bfcl import Question, read_questions
from flywheel_assets.demo.fetch import PINNED, fetch_wheel
from tests.core.formats.rows import Row, answer_of, calls

DECLINED = "No function on offer fits."
CATEGORIES = {
    "simple_python": 10,
    "multiple": 6,
    "live_simple": 6,
    "live_multiple": 4,
    "irrelevance": 4,
    "live_irrelevance": 2,
}
WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    wheel: Path = fetch_wheel(PINNED.questions, tmp_path_factory.mktemp("wheel"), print)
    return [each for name, count in CATEGORIES.items() for each in islice(read_questions(wheel, name), count)]


def expected_calls(question: Question) -> list[Row]:
    return [{"name": call.name, "arguments": json.loads(call.arguments)} for call in question.calls]


def bare(question: Question) -> list[Row]:
    return [tool["function"] for tool in question.tools]


def openai(question: Question) -> Row:
    answer: Row = {"role": "assistant", "content": DECLINED}
    if question.calls:
        functions = [{"name": call.name, "arguments": call.arguments} for call in question.calls]
        listed = [{"id": f"c{at}", "type": "function", "function": each} for at, each in enumerate(functions)]
        answer = {"role": "assistant", "content": None, "tool_calls": listed, "weight": 1}
    return {"messages": [{"role": "user", "content": question.text}, answer], "tools": list(question.tools)}


def sharegpt(question: Question) -> Row:
    answer = {"from": "gpt", "value": DECLINED}
    if question.calls:
        answer = {"from": "function_call", "value": json.dumps(expected_calls(question))}
    return {
        "conversations": [{"from": "human", "value": question.text}, answer],
        "tools": json.dumps(bare(question), ensure_ascii=False),
    }


def hermes(question: Question) -> Row:
    # As the published rows have them: the tools as JSON, the calls as Python wrote its dictionaries.
    called = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in expected_calls(question))
    system = f"Use what stands within <tools></tools>:\n<tools> {json.dumps(question.tools)} </tools>"
    return {
        "id": question.id,
        "conversations": [
            {"from": "system", "value": system},
            {"from": "human", "value": question.text},
            {"from": "gpt", "value": called or DECLINED},
        ],
    }


def xlam(question: Question) -> Row:
    return {
        "id": question.id,
        "query": question.text,
        "tools": json.dumps([in_words(function) for function in bare(question)], ensure_ascii=False),
        "answers": json.dumps(expected_calls(question)),
    }


def in_words(function: Row) -> Row:
    schema = function["parameters"]
    required = schema.get("required", [])

    def described(name: str, inner: Row) -> Row:
        if "type" not in inner:
            return inner
        kind = inner["type"]
        return {**inner, "type": WORDS.get(kind, kind) + ("" if name in required else ", optional")}

    return {**function, "parameters": {name: described(name, inner) for name, inner in schema["properties"].items()}}


def prompt_completion(question: Question) -> Row:
    completion = json.dumps(expected_calls(question)) if question.calls else DECLINED
    return {"prompt": question.text, "completion": completion, "tools": bare(question)}


def workflow_tracer(question: Question) -> Row:
    return {
        "agent": "bfcl agent",
        "query": question.text,
        "tools": list(question.tools),
        "tool_calls": expected_calls(question),
        "answer": None if question.calls else DECLINED,
        "success": True,
        "time": 0.5,
    }


def log(question: Question) -> Row:
    messages = openai(question)
    *asked, answer = messages["messages"]
    request = {"messages": asked, "tools": messages["tools"]}
    envelope = {"timestamp": 0, "workload_id": "w", "client_id": "c"}
    return {**envelope, "request": request, "response": {"choices": [{"message": answer}]}}


def langfuse(question: Question) -> Row:
    # As the `langfuse.openai` wrapper writes a generation down: input and output are JSON text.
    *asked, answer = openai(question)["messages"]
    answer.pop("weight", None)
    return {
        "id": question.id,
        "traceId": f"trace-{question.id}",
        "type": "GENERATION",
        "name": "bfcl agent",
        "startTime": "2026-01-31T12:00:00.000Z",
        "endTime": "2026-01-31T12:00:01.000Z",
        "input": json.dumps({"messages": asked, "tools": list(question.tools)}, ensure_ascii=False),
        "output": json.dumps(answer),
    }


RENDERED: dict[str, Callable[[Question], Row]] = {
    "log": log,
    "openai": openai,
    "sharegpt": sharegpt,
    "hermes": hermes,
    "xlam": xlam,
    "prompt-completion": prompt_completion,
    "workflow-tracer": workflow_tracer,
    "langfuse": langfuse,
}


def test_every_format_of_this_package_is_rendered_here() -> None:
    assert set(RENDERED) >= {form.name for form in BUILT_IN}


@pytest.mark.network
@pytest.mark.parametrize("name", RENDERED)
def test_questions_come_back_as_what_they_were(questions: list[Question], name: str) -> None:
    rows = [RENDERED[name](question) for question in questions]
    assert detect(rows, formats()).name == name
    for question, row in zip(questions, rows, strict=True):
        (record,) = read_line(
            json.dumps(row, ensure_ascii=False).encode(),
            format_named(name),
            max_bytes=1_000_000,
            default_workload="w",
            source=None,
            received_at=time.time(),
        )
        assert isinstance(record, Record), record
        body = json.loads(record.body)
        assert body["request"]["messages"] == [{"role": "user", "content": question.text}]
        assert [normal(tool) for tool in body["request"]["tools"]] == [normal(tool) for tool in question.tools]
        answer = answer_of(body)
        assert calls(answer) == expected_calls(question)
        if not question.calls:
            assert answer["content"] == ("" if name == "xlam" else DECLINED)


def normal(tool: Row) -> Any:
    """A tool as JSON Schema reads it: requiring nothing is as good as not saying so, and in any order."""
    function = tool["function"]
    parameters = dict(function["parameters"])
    required = sorted(parameters.pop("required", []))
    return {**function, "parameters": {**parameters, "required": required}}
