"""One record seen as a conversation: its training form, its hashes, and the facts splits and profiles need.

What belongs here: pure functions on one canonical record (already through `parse_record`). What does not: many records
at once (`segments`, `index`), and which side of the exam a conversation falls on (`assignment`).

The hashes are over the training form, because two records that train alike must never sit on both sides of an exam:
text given as parts equals the same text as a string, and the random ids of the answer's tool calls do not count.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from flywheel_assets.core.cleaning.quality import feedback_score, is_cut_off, is_refusal
from flywheel_assets.core.datasets.gold import correction_of, right_message
from flywheel_assets.core.rows import Json
from flywheel_assets.core.usage import usage_of

TOOL_CLASS_PREFIX = "tool:"
NO_CALL = "no_call"
TEXT = "text"
# In characters. What is longer is a sentence, and names no class.
LONGEST_LABEL = 64

_TEXT_PARTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
_UNSUPPORTED_PARTS = {
    "image_url": "image",
    "image": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
}
_SPOKEN = ("audio", "image")
_STRUCTURED_FORMATS = ("json_object", "json_schema")


class Facts(NamedTuple):
    """What the index keeps of one record; the column of each field has its name (`index.SCHEMA` says the types).

    `trace`, `prompt`, `session` and `content` are 64-bit hashes, `session` 0 where there is none. `row_id` is 16 bytes:
    the hash of the whole conversation. `kind` is `tool:<name of the first call>`, `no_call` (tools were offered, none
    called) or `text`. `definitions` are 64-bit hashes of the offered tools, schemas and all, in the order of `tools`.
    `structured`: no tool is called, and the answer is a JSON object or list, or one was asked for. `unsupported` is empty,
    or what the record holds that a text model cannot take. Sizes are bytes of JSON (messages and
    tools; the answer). `label` is a 64-bit hash of the answer where it could be a label: one short line of text and no
    call; else 0. The answer is the one that counts (`gold`): `cut_off` and `refusal`
    are about it, `feedback` is its score (NaN: none, or it was corrected). Tokens are as
    the teacher's server reported them (`core.usage`), both or neither. The six last
    fields say where (byte, length) the body holds the prompt and the tools in training form, and the answer message;
    `prompt_at` is -1 where it does not hold them as they are.
    """

    trace_id: str
    trace: int
    row_id: bytes
    prompt: int
    session: int
    content: int
    timestamp: float
    kind: str
    structured: bool
    source: str
    unsupported: str
    teacher: str
    tools: list[str]
    definitions: list[int]
    called: list[str]
    cost_usd: float | None
    latency_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    user_turns: int
    request_size: int
    answer_size: int
    label: int
    accepted: bool
    cut_off: bool
    refusal: bool
    feedback: float
    prompt_at: int
    prompt_bytes: int
    tools_at: int
    tools_bytes: int
    answer_at: int
    answer_bytes: int


def hash64(content: bytes) -> int:
    """A 64-bit hash of bytes, the same on every machine; never 0, which stands for "none"."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") or 1


# A workload offers the same tools again and again, and finding a hash is cheaper than making it.
_definition_hash = lru_cache(maxsize=4096)(hash64)


def session_hash(record: Json) -> int:
    """The hash of the session a record belongs to; 0 where it names none."""
    session = record.get("session_id")
    return hash64(f"session:{session}".encode()) if session else 0


def label_hash(text: str) -> int:
    """The hash of an answer that could be one of a set of labels; 0 for what is empty, long, or of several lines."""
    label = text.strip()
    if not label or len(label) > LONGEST_LABEL or len(label.splitlines()) > 1:
        return 0
    return hash64(label.casefold().encode("utf-8", "surrogatepass"))


def facts(record: Json, body: bytes, content_hash: bytes, session: int | None = None) -> Facts:
    """The facts of a canonical record. `body` and `content_hash` are those of its `Record`, `record` is the parsed body.

    `session` is its `session_hash`, where that was taken before the record was scrubbed.
    """
    request, response = record["request"], record["response"]
    answer = right_message(record)
    # What is wrong with an answer is no fault of the one that a person put in its place.
    corrected = correction_of(record) is not None
    prompt = training_prompt(request)
    prompt_json = canonical(prompt)
    tools = request.get("tools") or ()
    definitions = [canonical(tool) for tool in tools]
    tools_json = b"[" + b",".join(definitions) + b"]"
    completion = training_message(answer)
    calls = completion.get("tool_calls") or ()
    digest = hashlib.sha256(prompt_json + tools_json)
    prompt_hash = digest.digest()
    digest.update(canonical([completion["content"], [[c["function"]["name"], c["function"]["arguments"]] for c in calls]]))
    offered = [tool["function"]["name"] for tool in tools]
    called = [call["function"]["name"] for call in calls]
    answer_json = canonical(answer)
    # Canonical bodies hold them in this order, so each search starts where the last one ended.
    prompt_at = _place(body, b'"messages":', prompt_json, 0)
    tools_at = _place(body, b'"tools":', tools_json, prompt_at) if offered else prompt_at
    answer_at = _place(body, b'"message":', answer_json, tools_at)
    verbatim = min(prompt_at, tools_at, answer_at) >= 0
    used = usage_of(response)
    counted = used.prompt is not None and used.completion is not None
    return Facts(
        trace_id=record["id"],
        trace=hash64(record["id"].encode()),
        row_id=digest.digest()[:16],
        prompt=int.from_bytes(prompt_hash[:8], "little") or 1,
        session=session_hash(record) if session is None else session,
        content=int.from_bytes(content_hash[:8], "little"),
        timestamp=record["timestamp"],
        kind=TOOL_CLASS_PREFIX + called[0] if called else NO_CALL if offered else TEXT,
        structured=not called and is_structured(request, completion["content"]),
        source=record["source"],
        unsupported=unsupported_content(request, answer),
        teacher=_model(response) or _model(request),
        tools=offered,
        definitions=[_definition_hash(definition) for definition in definitions],
        called=called,
        cost_usd=record.get("cost_usd"),
        latency_ms=record.get("latency_ms"),
        prompt_tokens=used.prompt if counted else None,
        completion_tokens=used.completion if counted else None,
        cached_tokens=used.cached if counted else None,
        user_turns=user_turns(request),
        request_size=len(prompt_json) + len(tools_json),
        answer_size=len(answer_json),
        label=0 if called else label_hash(completion["content"]),
        accepted=accepted_answers(record) is not None,
        cut_off=not corrected and is_cut_off(response),
        refusal=is_refusal(request, answer),
        feedback=math.nan if corrected else feedback_score(record),
        prompt_at=prompt_at if verbatim else -1,
        prompt_bytes=len(prompt_json),
        tools_at=tools_at,
        tools_bytes=len(tools_json) if offered else 0,
        answer_at=answer_at,
        answer_bytes=len(answer_json),
    )


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: how canonical records are written, so that parts of them can be found in their bodies."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def user_turns(request: Json) -> int:
    """How often the user speaks in a request."""
    return sum([message["role"] == "user" for message in request["messages"]])


def accepted_answers(record: Json) -> list[Json] | None:
    """Several right answers, where the record brought them as a list of `{function: {parameter: [values]}}`.

    None where a person corrected the record: that is the one right answer.
    """
    answers = record.get("accepted_answers")
    if type(answers) is not list or not answers or not all(type(answer) is dict for answer in answers):
        return None
    if correction_of(record) is not None:
        return None
    return answers


def training_prompt(request: Json) -> list[Json]:
    """The messages of a request in training form."""
    return [training_message(message) for message in request["messages"]]


def training_message(message: Json) -> Json:
    """One message in training form: `content` always text, arguments JSON strings, nothing a chat template ignores."""
    content = message.get("content")
    if len(message) == 2 and type(content) is str:
        return message
    form: Json = {"content": content if type(content) is str else _text(message), "role": message["role"]}
    if calls := message.get("tool_calls"):
        form["tool_calls"] = [_training_call(call) for call in calls]
    if call_id := message.get("tool_call_id"):
        form["tool_call_id"] = call_id
    if name := message.get("name"):
        form["name"] = name
    return form


def training_tools(request: Json) -> bytes:
    """The offered tools as JSON text; `[]` where none are offered."""
    tools = request.get("tools")
    return canonical(tools) if tools else b"[]"


def is_structured(request: Json, answer: str) -> bool:
    """Whether a JSON object or list was asked for (a `response_format`), or the answer is one from end to end."""
    asked = request.get("response_format")
    if type(asked) is dict and asked.get("type") in _STRUCTURED_FORMATS:
        return True
    text = answer.strip()
    if text[:1] not in ("{", "["):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def unsupported_content(request: Json, answer: Json) -> str:
    """What of this conversation a text model cannot take: `image`, `audio`, the type of another part, or empty."""
    for message in (*request["messages"], answer):
        if message.get("audio"):
            return "audio"
        content = message.get("content")
        if type(content) is list:
            for part in content:
                if part["type"] not in _TEXT_PARTS:
                    return str(_UNSUPPORTED_PARTS.get(part["type"], part["type"]))
    asked = request.get("modalities")
    spoken = [modality for modality in _SPOKEN if type(asked) is list and modality in asked]
    return spoken[0] if spoken else ""


def _model(side: Json) -> str:
    """The model a request asked for or a response came from; records may hold anything there."""
    model = side.get("model")
    return model if type(model) is str else ""


def _place(body: bytes, key: bytes, part: bytes, start: int) -> int:
    """Where `part` lies in `body`, at or after `start`; -1 if it does not follow the first `key` there, or `start` is -1."""
    # Searching for the key and comparing what follows is several times faster than searching for the part.
    at = body.find(key, start) + len(key) if start >= 0 else -1
    return at if body.startswith(part, at) and at >= len(key) else -1


def _training_call(call: Json) -> Json:
    function = call["function"]
    form: Json = {"type": "function", "function": {"name": function["name"], "arguments": function["arguments"]}}
    if call_id := call.get("id"):
        form["id"] = call_id
    return form


def _text(message: Json) -> str:
    content: Any = message.get("content")
    if content is None:
        return str(message.get("refusal") or "")
    return "\n".join([_part_text(part) for part in content])


def _part_text(part: Json) -> str:
    field = _TEXT_PARTS.get(part["type"])
    # What is no text still has to tell two conversations apart.
    return str(part.get(field) or "") if field else canonical(part).decode()
