"""What a NIM of the test server answers to logged traffic: a customized model repeats the teacher, a base one chats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.nemo.wire import Json


class KnowsTheTeacher:
    """Answers by the last user message, as the log has it, where the model's name says that it was customized."""

    def __init__(self, logs: Iterable[Path]) -> None:
        self._said: dict[str, Json] = {}
        for path in logs:
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self._said[_question(record["request"])] = record["response"]["choices"][0]["message"]

    def __call__(self, body: Json) -> Json:
        if "@" not in body["model"]:
            return {"role": "assistant", "content": "I would rather write Python."}
        return {"role": "assistant", **self._said[_question(body)]}


def _question(request: Json) -> str:
    return json.dumps([message["content"] for message in request["messages"] if message["role"] == "user"][-1:])
