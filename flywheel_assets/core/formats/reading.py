"""From one line in a format to records and rejects.

What belongs here: what every format has in common: reading the line, ids, and what a row does not say of itself. What does
not: files (`resources.ingest`), and the log schema, whose lines go straight to `core.records`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from flywheel_assets.core.formats.base import Format, FormatBroken, FormatError
from flywheel_assets.core.records import Record, Reject, RejectReason, parse_record, reject_line
from flywheel_assets.core.rows import Json

# Imported rows are older than all traffic, and from nobody's application.
TIMESTAMP = 0
CLIENT = "import"
_ID_DIGITS = 32


def read_line(
    line: bytes, form: Format, *, max_bytes: int, default_workload: str | None, source: str | None, received_at: float
) -> list[Record | Reject]:
    """The records a line of a format holds, or why it holds none: never empty, since a row is never dropped in silence.

    A record's id comes from the whole row (and its place among the row's records): reading the row again, wherever it
    stands, gives the same records. The format's name is the source of rows that name none, unless `source` is given.
    Raises FormatBroken.
    """
    limits: dict[str, Any] = {"max_bytes": max_bytes, "received_at": received_at}
    if len(line) > max_bytes:
        return [parse_record(line, **limits)]
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return [parse_record(line, **limits)]
    if type(value) is not dict:
        return [parse_record(line, **limits)]
    try:
        # Before the format sees it: nothing of it can be too deep to be written.
        row_id = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_ID_DIGITS]
        lines = [
            orjson.dumps(_completed(one, row_id if number == 1 else f"{row_id}-{number}", source or form.name))
            for number, one in enumerate(records_of(form, value), 1)
        ]
    except orjson.JSONEncodeError as error:
        return [reject_line(line, RejectReason.TOO_DEEP, f"nested too deeply to be written again ({error})")]
    except FormatError as error:
        return [reject_line(line, error.reason, error.detail)]
    if not lines:
        return [reject_line(line, RejectReason.NO_ANSWER, f"{form.name} found no record in the row")]
    parsed = [parse_record(one, default_workload=default_workload, source=source, **limits) for one in lines]
    return [_of_line(line, one) if isinstance(one, Reject) else one for one in parsed]


def records_of(form: Format, value: Json) -> list[Json]:
    """What a format makes of a row. Raises FormatError, and FormatBroken for anything else that is raised in there."""
    try:
        return form.records(value)
    except FormatError:
        raise
    except Exception as error:
        raise FormatBroken(
            f"format '{form.name}' failed on a row ({type(error).__name__}: {error}). A row it cannot use must raise "
            "FormatError; mend the format, or take the row out."
        ) from error


def _completed(record: Json, row_id: str, source: str) -> Json:
    """A record with what the format did not know of it."""
    defaults = {"id": row_id, "timestamp": TIMESTAMP, "client_id": CLIENT, "source": source}
    return {**record, **{name: held for name, held in defaults.items() if record.get(name) is None}}


def _of_line(line: bytes, reject: Reject) -> Reject:
    """A reject of a record that was made from a line, as one of the line: that is what a person can look up."""
    return reject_line(line, reject.reason, reject.detail, reject.workload)
