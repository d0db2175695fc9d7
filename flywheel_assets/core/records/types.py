"""What parsing a log line gives: a `Record`, or a `Reject` that says why not.

What belongs here: these two types and the closed list of reasons. What does not: the rules that decide between them
(`parse` for the envelope, `chat` for the request and the response).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_SOURCE = "traffic"
HASH_BYTES = 16


class RejectReason(StrEnum):
    """Why a line is not a record. The values appear in reports and stores: add to them, never rename them."""

    OVERSIZE = "oversize"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    MISSING_FIELD = "missing_field"
    BAD_FIELD_TYPE = "bad_field_type"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_WORKLOAD_ID = "bad_workload_id"
    NOT_CHAT = "not_chat"
    EMPTY_MESSAGES = "empty_messages"
    UNKNOWN_ROLE = "unknown_role"
    MALFORMED_CONTENT = "malformed_content"
    EMPTY_MESSAGE = "empty_message"
    LEGACY_FUNCTIONS = "legacy_functions"
    MALFORMED_TOOLS = "malformed_tools"
    MALFORMED_TOOL_CALLS = "malformed_tool_calls"
    MALFORMED_TOOL_ARGUMENTS = "malformed_tool_arguments"
    ERROR_RESPONSE = "error_response"
    NO_CHOICES = "no_choices"
    UNFINISHED = "unfinished"
    TRUNCATED = "truncated"
    NO_ANSWER = "no_answer"
    FAILED_CALL = "failed_call"
    OUT_OF_RANGE = "out_of_range"


@dataclass(frozen=True, slots=True)
class Record:
    """One valid record.

    `workload` is the slug, `workload_id` the application's own name for it. `timestamp` is epoch seconds, UTC. `body` is
    the normalised record as JSON bytes: `id` first, then every other field with sorted keys, unknown fields kept;
    `timestamp` is a number there, `source` always present, every `arguments` of the messages a JSON string.
    `content_hash` is 16 bytes over everything in `body` but the id: equal hashes mean equal content.
    """

    id: str
    workload: str
    workload_id: str
    timestamp: float
    session_id: str | None
    source: str
    body: bytes
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is not a record.

    `detail` says where in the line and what was expected; `excerpt` is the start of the line, 160 characters at most;
    `line_hash` is 16 bytes over the whole line, by which the same bad line is known again. `workload` is the slug where
    the line's workload id could be read: a workload whose traffic is all of an unsupported kind is found by it.
    """

    reason: RejectReason
    detail: str
    excerpt: str
    line_hash: bytes
    workload: str | None = None
