"""The log schema itself: rows are records already.

What belongs here: telling such a row. What does not: reading it fast, which is `core.records` and skips this module.
"""

from __future__ import annotations

from flywheel_assets.core.rows import Json

_ENVELOPE = ("timestamp", "workload_id", "client_id", "request", "response")


class LogFormat:
    """One request and its response a row, in the log schema."""

    name = "log"
    title = "the log schema: request, response, workload_id (docs/log-schema.md)"

    def recognises(self, value: Json) -> bool:
        """A request with messages, and a response."""
        request = value.get("request")
        return type(request) is dict and "messages" in request and type(value.get("response")) is dict

    def resembles(self, value: Json) -> bool:
        """Whether this was meant as a record: two of its names suffice, so that a faulty log is read as a log."""
        return sum(name in value for name in _ENVELOPE) >= 2

    def records(self, value: Json) -> list[Json]:
        """The row."""
        return [value]
