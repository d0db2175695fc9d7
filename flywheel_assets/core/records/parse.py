"""From one line of a log to a `Record` or a `Reject`.

What belongs here: the envelope of the log schema (timestamp, workload, client, id, source, feedback, cost), the canonical
form and its hash. What does not: the request and the response (`chat`), and reading lines out of files.

This is the hot path of ingest: one JSON parse, one dump and one hash a line, and nothing is copied that need not be.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson

from flywheel_assets.core.records.chat import check_correction, check_request, check_response
from flywheel_assets.core.records.measures import check_measures, check_score
from flywheel_assets.core.records.refusal import Refusal, json_bytes, missing, shown, wrong_type
from flywheel_assets.core.records.types import DEFAULT_SOURCE, HASH_BYTES, Record, Reject, RejectReason
from flywheel_assets.core.rows import Json
from flywheel_assets.core.slugs import BadWorkloadId, workload_slug

EXCERPT_CHARACTERS = 160
MAX_ID_LENGTH = 256

# 1e11 seconds is the year 5138 and 1e11 milliseconds is 1973: nothing real lies on the wrong side of it.
_FIRST_MILLISECOND_EPOCH = 1e11
# Clocks differ and so do zones written down wrongly; two days forgive both, and a wrong unit or year is still caught.
_CLOCK_TOLERANCE_S = 2 * 86_400


def parse_record(
    line: bytes, *, max_bytes: int, default_workload: str | None = None, source: str | None = None, received_at: float
) -> Record | Reject:
    """The record a line holds, or the reason why it holds none. Never raises, whatever the bytes.

    `default_workload` and `source` fill in where the line names none; what the line says stands. `received_at` (epoch
    seconds) is the clock: a timestamp more than two days after it is refused. It is not part of the record. A record
    without `id` gets the hex of its content hash, so the same line twice is one record.
    """
    parsed = parse_content(
        line, max_bytes=max_bytes, default_workload=default_workload, source=source, received_at=received_at
    )
    return parsed if isinstance(parsed, Reject) else parsed[0]


def parse_content(
    line: bytes, *, max_bytes: int, default_workload: str | None = None, source: str | None = None, received_at: float
) -> tuple[Record, Json] | Reject:
    """`parse_record`, with the parsed content of the record's body: for who would otherwise parse that once more."""
    if len(line) > max_bytes:
        return oversize_reject(line, size=len(line), max_bytes=max_bytes, line_hash=_digest(line))
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unreadable(line, error)
    if type(content) is not dict:
        return _reject(line, RejectReason.NOT_AN_OBJECT, f"a line must hold a JSON object, found {shown(content)}", None)
    workload: str | None = None
    try:
        if content.get("workload_id") is None and default_workload is not None:
            content["workload_id"] = default_workload
        workload = _workload(content)
        return _normalised(content, workload, source or DEFAULT_SOURCE, received_at), content
    except Refusal as refusal:
        return _reject(line, refusal.reason, refusal.detail, workload)


def oversize_reject(head: bytes, *, size: int, max_bytes: int, line_hash: bytes) -> Reject:
    """The reject of a line that is too long, made from its first bytes so that it never has to be held whole."""
    detail = f"{size} bytes, {max_bytes} are allowed (local.max_record_bytes)"
    return Reject(RejectReason.OVERSIZE, detail, _excerpt(head), line_hash)


def reject_line(line: bytes, reason: RejectReason, detail: str, workload: str | None = None) -> Reject:
    """A reject of a line for a reason found elsewhere: by the format it was read in."""
    return _reject(line, reason, detail, workload)


def _normalised(content: Json, workload: str, source: str, received_at: float) -> Record:
    """Check every field, bring the record into its normal form, and take its canonical bytes and hash."""
    request, response = content.get("request"), content.get("response")
    check_request(request, response)
    check_response(response)
    timestamp = _seconds(content.get("timestamp"), received_at)
    content["timestamp"] = timestamp
    client = content.get("client_id")
    if type(client) is not str or not client:
        raise missing("client_id") if client is None or client == "" else wrong_type("client_id", "text", client)
    session_id = _name(content, "session_id")
    source = _name(content, "source") or source
    content["source"] = source
    check_measures(content)
    _check_feedback(content)
    given_id = _name(content, "id")
    content.pop("id", None)
    canonical = json_bytes(content, option=orjson.OPT_SORT_KEYS)
    content_hash = _digest(canonical)
    record_id = given_id or content_hash.hex()
    body = _with_id(canonical, record_id)
    content["id"] = record_id
    return Record(record_id, workload, content["workload_id"], timestamp, session_id, source, body, content_hash)


def canonical_body(content: Json) -> tuple[bytes, bytes]:
    """The canonical body of a record's parsed content, and its content hash: those of its `Record`, taken again."""
    canonical = orjson.dumps({name: value for name, value in content.items() if name != "id"}, option=orjson.OPT_SORT_KEYS)
    return _with_id(canonical, content["id"]), _digest(canonical)


def _with_id(canonical: bytes, record_id: str) -> bytes:
    # Spliced in rather than dumped again: the second dump would cost as much as everything checked before.
    return b'{"id":' + orjson.dumps(record_id) + b"," + canonical[1:]


def _workload(content: Json) -> str:
    workload_id = content.get("workload_id")
    if workload_id is None:
        raise Refusal(RejectReason.MISSING_FIELD, "workload_id is missing (and no default workload was given)")
    try:
        return workload_slug(workload_id)
    except BadWorkloadId as error:
        raise Refusal(RejectReason.BAD_WORKLOAD_ID, str(error)) from None


def _seconds(value: Any, received_at: float) -> float:
    """A timestamp as epoch seconds: a number, or ISO 8601 text where a missing zone means UTC."""
    if type(value) is float or type(value) is int:
        seconds = float(value)
    elif type(value) is str:
        seconds = _seconds_of_text(value)
    elif value is None:
        raise missing("timestamp")
    else:
        raise _bad_timestamp(value, "must be epoch seconds or ISO 8601 text")
    if seconds < 0:
        raise _bad_timestamp(value, "is before 1970")
    if seconds >= _FIRST_MILLISECOND_EPOCH:
        raise _bad_timestamp(value, "looks like milliseconds or finer; divide it to give epoch seconds")
    if seconds > received_at + _CLOCK_TOLERANCE_S:
        raise _bad_timestamp(value, "lies in the future")
    return seconds


def _seconds_of_text(text: str) -> float:
    if text.isdigit():
        raise _bad_timestamp(text, "is a number written as text; give epoch seconds as a number")
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise _bad_timestamp(text, "is not ISO 8601 (such as 2026-01-31T12:00:00Z)") from None


def _bad_timestamp(value: Any, problem: str) -> Refusal:
    return Refusal(RejectReason.BAD_TIMESTAMP, f"timestamp {shown(value)} {problem}")


def _name(content: Json, field: str) -> str | None:
    """An optional short text; a whole number is written as text in place, null and empty text count as absent."""
    value = content.get(field)
    if value is None or value == "":
        return None
    if type(value) is int:
        value = content[field] = str(value)
    if type(value) is not str:
        raise wrong_type(field, "text", value)
    if len(value) > MAX_ID_LENGTH:
        raise Refusal(RejectReason.BAD_FIELD_TYPE, f"{field} has {len(value)} characters, {MAX_ID_LENGTH} are allowed")
    return value


def _check_feedback(content: Json) -> None:
    feedback = content.get("feedback")
    if feedback is None:
        return
    if type(feedback) is not dict:
        raise wrong_type("feedback", "an object with `score` and `correction`", feedback)
    check_score(feedback.get("score"))
    correction = feedback.get("correction")
    if correction is not None and type(correction) not in (str, dict):
        raise wrong_type("feedback.correction", "text or an assistant message", correction)
    if type(correction) is dict:
        check_correction(correction)


def _unreadable(line: bytes, error: orjson.JSONDecodeError) -> Reject:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as fault:
        detail = f"byte {fault.start} of the line is not UTF-8; save the log as UTF-8"
        return _reject(line, RejectReason.NOT_UTF8, detail, None)
    if error.msg.startswith("depth limit"):
        return _reject(line, RejectReason.TOO_DEEP, "the line nests more than 1,000 objects or lists", None)
    return _reject(line, RejectReason.NOT_JSON, f"{error.msg} at character {error.pos}", None)


def _reject(line: bytes, reason: RejectReason, detail: str, workload: str | None) -> Reject:
    return Reject(reason, detail, _excerpt(line), _digest(line), workload)


def _excerpt(line: bytes) -> str:
    # Four bytes a character at most, so this many bytes always suffice and a huge line is never decoded.
    return line[: EXCERPT_CHARACTERS * 4].decode("utf-8", "replace")[:EXCERPT_CHARACTERS]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:HASH_BYTES]
