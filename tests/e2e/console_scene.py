"""A flywheel for the console's pages: two endpoints examined on a support desk's traffic, and a tiny model to be trained.

The endpoints are doubles on a real socket, one nearly always right and one half the time; the tiny model is really trained
and really served. So every page shows what the real code path makes of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import Message, OpenAIDouble
from tests.trainer.tiny_model import write_gguf

DESK, DRILLS, FEW = "support-desk", "drills", "too-few"
RIGHT, WRONG, TINY = "hosted-4b", "hosted-1b", "tiny"


@contextmanager
def scene(folder: Path) -> Iterator[Clone]:
    """The clone, its traffic ingested and its endpoints up. Nothing is made yet."""
    traffic = {name: folder / f"{name}.jsonl" for name in (DESK, DRILLS, FEW)}
    for name, n in ((DESK, 400), (DRILLS, 160), (FEW, 20)):
        write_ticket_records(traffic[name], n, workload=name)
        _as_logged_by_a_teacher(traffic[name])
    answers = _answers(traffic[DESK])
    with OpenAIDouble(_examinee(answers, 0.985)) as right, OpenAIDouble(_examinee(answers, 0.6)) as wrong:
        clone = Clone.make(folder / "clone", lambda content: _edit(content, right.url, wrong.url))
        write_gguf(clone.root / "tiny.gguf")
        for path in traffic.values():
            clone.flywheel("ingest", str(path))
        yield clone


def _edit(content: dict[str, Any], right: str, wrong: str) -> None:
    endpoint = {"engine": "openai", "trainable": False, "workloads": [DESK, FEW]}
    content["candidates"] = [
        {"id": RIGHT, "model": right, "model_name": "double", **endpoint},
        {"id": WRONG, "model": wrong, "model_name": "double", **endpoint},
        {"id": TINY, "model": "tiny.gguf", "chat_template": "chatml-tools", "workloads": [DRILLS]},
    ]
    content["split"].update(eval_size=150)
    content["training"].update(epochs=30, save_steps=20, max_seq_length=1024, timeout_minutes=30)
    content["decision"]["gates"] = [{"metric": "function_name_and_args", "margin": 0.1}]
    content["hub"] = {"enabled": True, "folder": "shelf"}
    content["prices"] = {RIGHT: {"prompt": 0.1, "completion": 0.4}, WRONG: {"prompt": 0.03, "completion": 0.1}}
    content["workloads"] = {DESK: {}, DRILLS: {"split": {"eval_size": 20}}, FEW: {}}


def _as_logged_by_a_teacher(path: Path) -> None:
    """What the call cost, and a key that somebody pasted into the chat."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for number, record in enumerate(records):
        record["cost_usd"] = 0.004
        if number % 40 == 0:
            record["request"]["messages"][0]["content"] += " My key is sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2."
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _answers(path: Path) -> dict[str, Message]:
    """What the teacher said, by the case the question is about."""
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        case = record["request"]["messages"][-1]["content"].partition(":")[0]
        found[case] = record["response"]["choices"][0]["message"]
    return found


def _examinee(answers: dict[str, Message], share: float) -> Any:
    """An endpoint that says what the teacher said to that share of the cases, and declines the others."""

    def answer(body: Message) -> Message:
        case = body["messages"][-1]["content"].partition(":")[0]
        lucky = int(hashlib.sha256(f"{share} {case}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF < share
        return answers[case] if lucky else {"role": "assistant", "content": "I would rather not."}

    return answer
