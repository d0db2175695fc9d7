"""The demo's log: which questions of the leaderboard are used, and the log record of each.

What belongs here: the selection, the sessions that keep functions apart, and the record. What does not: the leaderboard's
own form (`bfcl`).

The records are public benchmark requests with accepted answers, and say so in every one of them (`source`, `note`, the
name of the teacher). They are no production traffic, and the teacher is no model: it is right by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from flywheel_assets.core.rows import Json
from flywheel_assets.demo.bfcl import CALL_CATEGORIES, NO_CALL_CATEGORIES, Question, read_questions

TOOL_WORKLOAD = "bfcl-tool-router"
NAMING_WORKLOAD = "bfcl-function-naming"

SOURCE = "bfcl-public-benchmark"
TEACHER = "bfcl-accepted-answers"
CLIENT = "bfcl-demo"
NOTE = "public benchmark request with its accepted answer (Berkeley Function Calling Leaderboard); not production traffic"

# Six questions in seven call a function, one must not. With `split.eval_size: 84` (38% of the sessions) the eval side holds
# 65 rows that expect a call and 14 that do not, and the training side 141, of which flywheel.yaml trains on half.
QUOTAS: Mapping[str, int] = {
    "simple_python": 104,
    "multiple": 44,
    "live_simple": 28,
    "live_multiple": 12,
    "irrelevance": 22,
    "live_irrelevance": 10,
}

# Two cores read about 300 prompt tokens and write 49 a second: long schemas would double the demo's time. As JSON text;
# 1,200 characters are about 150 tokens in the compact form of the chat template.
MAX_REQUEST_CHARACTERS = 1200
# Every reference fits MAX_TOKENS with the mark-up around it (59 tokens at most). The tokenizer spends a token on
# each digit and on some three other characters, so a digit counts three times.
MAX_TOKENS = 64
MAX_REFERENCE_WEIGHT = 110
# A session goes to one side as a whole; a large one would tip the balance between the sides.
MAX_SESSION_ROWS = 6

# Monday 5 January 2026, 08:00 UTC, and two working weeks from there: any fixed past would do.
_FIRST_TIMESTAMP = 1_767_600_000
_SPAN_S = 12 * 86_400

_NO_CALL_ANSWERS = (
    "None of the functions I was given can do that, so I did not call one.",
    "I cannot answer this with the functions available here.",
    "No function on offer fits this request, so I made no call.",
    "The functions I have do not cover this request.",
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A question that is used, and the session it belongs to: no function is offered in two sessions."""

    question: Question
    session: str


def choose(wheel: Path, quotas: Mapping[str, int] = QUOTAS) -> list[Chosen]:
    """The demo's questions, the same every time: of each category its quota of short ones, in hash order, no text twice.

    Questions that share an offered function form one session. A question that would join sessions to more than
    MAX_SESSION_ROWS rows is passed over, so that a few popular functions cannot fill one side of the split.
    """
    sessions = _Sessions()
    texts: set[str] = set()
    taken: list[Question] = []
    for category in (*CALL_CATEGORIES, *NO_CALL_CATEGORIES):
        wanted = quotas.get(category, 0)
        questions = sorted(read_questions(wheel, category), key=lambda q: _hash(q.id)) if wanted else []
        for question in questions:
            if wanted == 0:
                break
            text = " ".join(question.text.lower().split())
            if text in texts or not _is_short(question) or not sessions.admit(question):
                continue
            texts.add(text)
            taken.append(question)
            wanted -= 1
    taken.sort(key=lambda q: _hash(q.id))
    return [Chosen(question, sessions.name_of(question)) for question in taken]


def tool_records(chosen: Sequence[Chosen]) -> list[Json]:
    """A log record of each question: the request with its tools, and the reference call, or the sentence that declines."""
    return [
        _record(
            item,
            workload=TOOL_WORKLOAD,
            record_id=f"bfcl-{item.question.id}",
            timestamp=timestamp,
            request=_tool_request(item.question),
            message=_tool_answer(item.question),
            accepted=item.question.accepted,
        )
        for item, timestamp in zip(chosen, _timestamps(len(chosen)), strict=True)
    ]


def naming_records(chosen: Sequence[Chosen]) -> list[Json]:
    """The same questions as a text task: name the function to call, or `none`. It gives the demo a generic workload."""
    return [
        _record(
            item,
            workload=NAMING_WORKLOAD,
            record_id=f"bfcl-naming-{item.question.id}",
            timestamp=timestamp,
            request=_naming_request(item.question),
            message={"role": "assistant", "content": ", ".join(call.name for call in item.question.calls) or "none"},
            accepted=None,
        )
        for item, timestamp in zip(chosen, _timestamps(len(chosen)), strict=True)
    ]


def as_lines(records: Iterable[Json]) -> bytes:
    """Records as JSON lines."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


class _Sessions:
    """Groups of questions linked by the functions they offer (a union-find over function names)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._rows: dict[str, int] = {}

    def admit(self, question: Question) -> bool:
        """Take a question in, unless the session it would make is too large; says whether it was taken."""
        roots = {self._root(name) for name in question.tool_names}
        rows = 1 + sum(self._rows.get(root, 0) for root in roots)
        if rows > MAX_SESSION_ROWS:
            return False
        # The smallest name is the root, so a session's name does not depend on the order of arrival.
        root = min(roots)
        for name in roots:
            self._parent[name] = root
        self._rows[root] = rows
        return True

    def name_of(self, question: Question) -> str:
        """The name of a taken question's session, once every question is in."""
        return f"bfcl-{self._root(question.tool_names[0])}"

    def _root(self, name: str) -> str:
        while (parent := self._parent.get(name, name)) != name:
            name = parent
        return name


def _is_short(question: Question) -> bool:
    request = len(question.text) + len(orjson.dumps(question.tools))
    reference = "".join(call.name + call.arguments for call in question.calls)
    weight = len(reference.encode()) + 2 * sum(character.isdigit() for character in reference)
    return request <= MAX_REQUEST_CHARACTERS and weight <= MAX_REFERENCE_WEIGHT


def _record(
    item: Chosen,
    *,
    workload: str,
    record_id: str,
    timestamp: int,
    request: Json,
    message: Json,
    accepted: tuple[Json, ...] | None,
) -> Json:
    record: Json = {
        "id": record_id,
        "timestamp": timestamp,
        "workload_id": workload,
        "client_id": CLIENT,
        "session_id": item.session,
        "source": SOURCE,
        "note": NOTE,
        "labels": {"benchmark": "bfcl", "category": item.question.category},
        "request": request,
        "response": {
            "id": f"{record_id}-answer",
            "object": "chat.completion",
            "created": timestamp,
            "model": TEACHER,
            "choices": [
                {"index": 0, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop", "message": message}
            ],
        },
    }
    if accepted is not None:
        record["accepted_answers"] = list(accepted)
    return record


def _tool_request(question: Question) -> Json:
    return {
        "model": TEACHER,
        "messages": [{"role": "user", "content": question.text}],
        "tools": list(question.tools),
        "tool_choice": "auto",
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }


def _tool_answer(question: Question) -> Json:
    if not question.calls:
        return {"role": "assistant", "content": _NO_CALL_ANSWERS[_hash(question.id)[0] % len(_NO_CALL_ANSWERS)]}
    calls = [
        {"id": f"call_{position}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for position, call in enumerate(question.calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _naming_request(question: Question) -> Json:
    offered = "\n".join(f"- {tool['function']['name']}: {tool['function']['description']}" for tool in question.tools)
    prompt = (
        f"Functions:\n{offered}\n\nRequest: {question.text}\n\n"
        "Which function serves the request? Answer with its name only, or with none if no function does."
    )
    return {"model": TEACHER, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 24}


def _timestamps(count: int) -> list[int]:
    return [_FIRST_TIMESTAMP + _SPAN_S * position // max(count, 1) for position in range(count)]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
