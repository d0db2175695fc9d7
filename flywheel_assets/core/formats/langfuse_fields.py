"""The small fields of a Langfuse observation: parameters, usage, cost, latency, scores, and the spellings of their names."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeGuard

import orjson

from flywheel_assets.core.records.measures import MAX_TOKENS, milliseconds_of
from flywheel_assets.core.rows import Json

# What the `langfuse.openai` wrapper writes down when the caller sent nothing: the API's own defaults.
_WRAPPER_DEFAULTS: Mapping[str, float] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "n": 1,
}
_NOT_PARAMETERS = frozenset({"messages", "model", "tools", "functions", "function_call"})
_USAGE = {"prompt_tokens": ("input", "prompt_tokens"), "completion_tokens": ("output", "completion_tokens")}


def parsed(value: Any) -> Any:
    """A value that may have been written as JSON text; text that is none stays as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def camel_case(row: Json) -> Json:
    """An observation with the API's field names: blob-storage exports write them in snake case."""
    if "trace_id" not in row and "start_time" not in row:
        return row
    return {_camel(key): value for key, value in row.items()}


def parameters(given: Any) -> Json:
    """Request parameters out of `modelParameters`, without what was never sent. Numbers written as text become numbers."""
    given = parsed(given)
    if not isinstance(given, dict):
        return {}
    numbers = {key: _number(value) for key, value in given.items() if key not in _NOT_PARAMETERS and value is not None}
    return {key: value for key, value in numbers.items() if not _was_not_sent(key, value)}


def usage(given: Any) -> Json | None:
    """Token counts in OpenAI's words; None where none were recorded."""
    given = parsed(given)
    if not isinstance(given, dict):
        return None
    counts: Json = {}
    for name, spellings in _USAGE.items():
        for spelling in spellings:
            if _is_number(given.get(spelling)):
                # JSON holds no integer beyond 64 bits; as it is, the rules of a record refuse it by name.
                counts[name] = int(given[spelling]) if abs(given[spelling]) <= MAX_TOKENS else float(given[spelling])
                break
    if counts:
        counts["total_tokens"] = sum(counts.values())
    return counts or None


def cost_usd(observation: Json) -> float | None:
    """US dollars of the generation; None where Langfuse knows no price."""
    details = parsed(observation.get("costDetails"))
    for value in (observation.get("totalCost"), details.get("total") if isinstance(details, dict) else None):
        number = _number(value)
        if _is_number(number) and number >= 0:
            return float(number)
    return None


def latency_ms(observation: Json) -> float | None:
    """Milliseconds from start to end, as Langfuse measured them (it answers null for less than one)."""
    given = observation.get("latency")
    seconds = (
        float(given) if _is_number(given) else _seconds_between(observation.get("startTime"), observation.get("endTime"))
    )
    return round(milliseconds_of(seconds), 3) if seconds is not None and seconds >= 0 else None


def feedback_of(score: Json | None, correction: Json | None) -> Json | None:
    """`feedback` from a numeric or boolean score and from one with a better answer; None where neither says anything."""
    feedback: Json = {}
    if score is not None and isinstance(score.get("value"), int | float):
        feedback["score"] = float(score["value"])
    if correction is not None:
        value = correction.get("value")
        text = value if isinstance(value, str) and value else correction.get("comment")
        if isinstance(text, str) and text:
            message = parsed(text)
            feedback["correction"] = message if isinstance(message, dict) and message.get("role") == "assistant" else text
    return feedback or None


def named_feedback(scores: Any, score_name: str | None, correction_name: str | None) -> Json | None:
    """`feedback` from a list of scores with `name` and `value`, as some exports carry beside an observation."""
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        return None
    by_name = {score["name"]: score for score in scores if isinstance(score, dict) and isinstance(score.get("name"), str)}
    return feedback_of(by_name.get(score_name or ""), by_name.get(correction_name or ""))


def _seconds_between(start: Any, end: Any) -> float | None:
    if not isinstance(start, str) or not isinstance(end, str):
        return None
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None


def _was_not_sent(key: str, value: Any) -> bool:
    if key == "max_tokens":
        # Endless: the wrapper's "Infinity".
        return isinstance(value, str) or (isinstance(value, float) and math.isinf(value))
    return key in _WRAPPER_DEFAULTS and value == _WRAPPER_DEFAULTS[key]


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if number.is_integer() and "." not in value else number


def _is_number(value: Any) -> TypeGuard[float]:
    # Not `math.isfinite`: it raises for an integer beyond what a float holds. NaN compares as false.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    aliases = {"provided_model_name": "model", "model_parameters": "modelParameters"}
    return aliases.get(name) or first + "".join(word.capitalize() for word in rest)
