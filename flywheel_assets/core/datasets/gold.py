"""Gold: which answer a record is learned from and examined against, and on whose word.

A person's correction outranks what the teacher answered, and a person's approval confirms it. What belongs here: that
ranking, as pure functions on one canonical record. What does not: which rows are drawn (`split`), and how the teacher's own
answer fares where it was corrected (`core.comparison`).
"""

from __future__ import annotations

from enum import StrEnum

from flywheel_assets.core.rows import Json


class Gold(StrEnum):
    """On whose word an eval row's answer is the right one, the strongest first."""

    CORRECTION = "correction"
    ACCEPTED_ANSWERS = "accepted_answers"
    FEEDBACK = "feedback"
    TEACHER = "teacher"


def logged_message(record: Json) -> Json:
    """The assistant message of the first choice: what the teacher answered."""
    message: Json = record["response"]["choices"][0]["message"]
    return message


def correction_of(record: Json) -> Json | None:
    """The assistant message a person put in the place of the logged one; text is an answer without tool calls."""
    feedback = record.get("feedback")
    correction = feedback.get("correction") if type(feedback) is dict else None
    if not correction:
        return None
    return correction if type(correction) is dict else {"role": "assistant", "content": correction}


def right_message(record: Json) -> Json:
    """The answer that counts: the correction where there is one, else the logged one."""
    return correction_of(record) or logged_message(record)


def is_condemned(row: Json, score: float, lowest: float) -> bool:
    """Whether somebody disliked the answer an eval row is examined against, and put nothing in its place.

    `score` is the record's feedback, `lowest` the least of the whole workload. Below 0 is dislike; 0 is, where
    nobody scores lower: the bottom of thumbs (0 or 1), shares and percents. On a scale that goes below 0 it says neither,
    and which of one to five stars is bad only a person can say (`cleaning.min_feedback`).
    """
    if row["logged_answer"] or row.get("accepted_answers"):
        return False
    return score < 0 or (score == 0 and lowest == 0)


def gold_of(row: Json, score: float, least: float | None) -> Gold:
    """On whose word the answer of an eval row (`rendering.eval_json`) is right.

    `score` is the record's feedback (NaN: none); from `least` (cleaning.min_feedback) on it confirms the logged answer.
    Without that bound nobody can tell praise from blame, and the score says nothing.
    """
    if row["logged_answer"]:
        return Gold.CORRECTION
    if row.get("accepted_answers"):
        return Gold.ACCEPTED_ANSWERS
    return Gold.FEEDBACK if least is not None and score >= least else Gold.TEACHER
