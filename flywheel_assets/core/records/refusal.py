"""How a rule of the log schema says no, and how a value is shown when it does.

What belongs here: the exception the rules raise among themselves. What does not: `Reject`, which is what leaves this
package; nobody outside it ever sees a `Refusal`.
"""

from __future__ import annotations

from typing import Any

import orjson

from flywheel_assets.core.records.types import RejectReason

_SHOWN_CHARACTERS = 60


class Refusal(Exception):
    """A rule is broken: the reason, and a detail that says where and what was expected."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def shown(value: Any) -> str:
    """A value as it may stand in a message: its JSON kind, and its text where that is short by nature."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)[:_SHOWN_CHARACTERS]
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else repr(value[:_SHOWN_CHARACTERS] + "...")
    return "an object" if isinstance(value, dict) else "a list"


def wrong_type(where: str, expected: str, value: Any) -> Refusal:
    """The refusal of a field that holds another kind of value than the schema says."""
    return Refusal(RejectReason.BAD_FIELD_TYPE, f"{where} must be {expected}, found {shown(value)}")


def missing(where: str) -> Refusal:
    """The refusal of a record without a field it needs (absent and null are the same)."""
    return Refusal(RejectReason.MISSING_FIELD, f"{where} is missing")


def json_bytes(value: Any, *, option: int = 0) -> bytes:
    """A value read from JSON, written again. Reading goes 1,024 levels deep and writing 254: between them lies a refusal."""
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError as error:
        raise Refusal(RejectReason.TOO_DEEP, f"nested too deeply to be written again ({error})") from None
