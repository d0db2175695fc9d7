"""Verdicts: what a judge said, read strictly.

A verdict is one JSON object with one key, exactly as the rubric asks. Anything else, a sentence around it, a code fence, a
number as text or out of range, is no verdict: it is counted, and never guessed at. (A well-known workflow reads the first
digit of a score, and so takes the judge's "10" for 1.)
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from flywheel_assets.core.judge.columns import Rubric

_SCORES = {Rubric.TOOL_CALL: range(2), Rubric.SIMILARITY: range(1, 11)}
_LOWEST, _HIGHEST = 1, 10


class Winner(StrEnum):
    """What a judge says of two answers."""

    A = "A"
    B = "B"
    TIE = "tie"


def parse_score(rubric: Rubric, text: str | None) -> int | None:
    """The score in a judge's reply: 0 or 1 (tool calls), 1 to 10 (similarity); None where there is no verdict."""
    score = _only_value(text, "score")
    # A bool is an int to Python, and 10.0 equals 10: neither is what the rubric asks for.
    return score if type(score) is int and score in _SCORES[rubric] else None


def parse_winner(text: str | None) -> Winner | None:
    """The winner in a judge's reply; None where there is no verdict."""
    winner = _only_value(text, "winner")
    return Winner(winner) if isinstance(winner, str) and winner in list(Winner) else None


def to_share(score: int) -> float:
    """A similarity score of 1 to 10 as 0..1."""
    return (score - _LOWEST) / (_HIGHEST - _LOWEST)


def _only_value(text: str | None, key: str) -> Any:
    """The value of `key`, where the text is a JSON object with this key, once, and no other."""
    if text is None:
        return None
    try:
        # Pairs, because of a key that occurs twice a dictionary would keep the last.
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, tuple) and len(found) == 1 and found[0][0] == key:
        return found[0][1]
    return None
