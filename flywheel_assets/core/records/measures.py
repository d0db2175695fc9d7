"""Measures: the numbers of a record that later become sums, means and percentiles, and what is believed of them.

What belongs here: the bounds, and the checks that refuse what lies outside them. What does not: what is made of the
numbers (`core.usage`, `core.costs`). One value of 1e308 would turn every mean it enters into infinity, which JSON cannot
hold: it is stopped here, where the line can still be named.
"""

from __future__ import annotations

import sys
from typing import Any

from flywheel_assets.core.records.refusal import Refusal, shown, wrong_type
from flywheel_assets.core.records.types import RejectReason
from flywheel_assets.core.rows import Json

# Ten million tokens of context at the dearest price ever asked for output (600 USD a million) cost 6,000 USD.
MAX_COST_USD = 10_000
# Batch endpoints answer within a day, retries may take a few; nobody waits for more than a week.
MAX_LATENCY_MS = 7 * 24 * 3_600 * 1_000
# The largest context windows hold ten million tokens.
MAX_TOKENS = 100_000_000
# Thumbs, stars, percent and points: whatever people rate by lies far inside.
MAX_SCORE = 1_000_000

# Token counts of `response.usage`, and of the objects inside it, that are read somewhere (`core.usage`).
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens", "cached_tokens")
_DETAILS = {"prompt_tokens_details": ("cached_tokens",)}


def check_measures(record: Json) -> None:
    """Check `latency_ms`, `cost_usd` and the token counts of the response. Raises Refusal at the first that is no number,
    or none that can be believed."""
    _check_number("latency_ms", record.get("latency_ms"), 0, MAX_LATENCY_MS)
    _check_number("cost_usd", record.get("cost_usd"), 0, MAX_COST_USD)
    usage = record["response"].get("usage")
    if usage is None:
        return
    if type(usage) is not dict:
        raise wrong_type("response.usage", "an object with token counts", usage)
    for name in _COUNTS:
        _check_count(f"response.usage.{name}", usage.get(name))
    for holder, names in _DETAILS.items():
        details = usage.get(holder)
        if type(details) is dict:
            for name in names:
                _check_count(f"response.usage.{holder}.{name}", details.get(name))


def milliseconds_of(seconds: float) -> float:
    """Seconds in milliseconds, and never infinity: JSON would hold null for it, as if nothing had been logged."""
    return min(seconds * 1000.0, sys.float_info.max)


def check_score(score: Any) -> None:
    """Check `feedback.score`; None is no score."""
    _check_number("feedback.score", score, -MAX_SCORE, MAX_SCORE)


def _check_number(where: str, value: Any, least: int, most: int) -> None:
    if value is None:
        return
    expected = f"a number from {least:,} to {most:,}"
    if type(value) is not float and type(value) is not int:
        raise wrong_type(where, expected, value)
    if not least <= value <= most:
        raise _out_of_range(where, expected, value)


def _check_count(where: str, value: Any) -> None:
    if value is None:
        return
    expected = f"a whole number from 0 to {MAX_TOKENS:,}"
    if type(value) is not int and not (type(value) is float and value.is_integer()):
        raise wrong_type(where, expected, value)
    if not 0 <= value <= MAX_TOKENS:
        raise _out_of_range(where, expected, value)


def _out_of_range(where: str, expected: str, value: Any) -> Refusal:
    return Refusal(RejectReason.OUT_OF_RANGE, f"{where} must be {expected}, found {shown(value)}")
