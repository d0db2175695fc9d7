"""Quality: what an answer says about itself before anybody judges it: cut off, refused, or disliked.

What belongs here: the three facts, as pure functions on a record. What does not: whether such a record is used
(`QualityPolicy`, applied where datasets are split).
"""

from __future__ import annotations

import math
import re

from flywheel_assets.core.rows import Json

_CUT_OFF = frozenset({"length", "max_tokens", "content_filter"})
# A refusal is short: a long answer that opens with an apology has usually found something to say.
_LONGEST_REFUSAL = 400
_APOLOGY = (
    r"(?:(?:i['’]?m|i am) (?:very |so |really )?sorry|sorry|apologies|i apologi[sz]e|unfortunately"
    r"|as an ai(?: language model| assistant)?)"
)
_UNABLE = (
    r"(?:i (?:can(?:['’]?t|not| not)|could not|am (?:unable|not able) to|won['’]?t(?: be able to)?|will not)"
    r"|i['’]m (?:unable|not able) to)"
)
_ACTS = (
    r"(?:help|assist|comply|fulfil|support you|continue|do that|provide|create|generate|write|answer|discuss|engage"
    r"|participate|share|give|offer)"
)
_REFUSAL = re.compile(rf"(?i)(?:{_APOLOGY}[\s,.;:–—-]+)?(?:but )?(?:unfortunately,? )?{_UNABLE} (?:be able to )?{_ACTS}\b")


def is_cut_off(response: Json) -> bool:
    """Whether the answer ended at the token limit or in a content filter instead of where it was finished."""
    reason = response["choices"][0].get("finish_reason")
    return type(reason) is str and reason in _CUT_OFF


def is_refusal(request: Json, answer: Json) -> bool:
    """Whether the model declined: it says so in `refusal`, or in a short text whose first words are a well-known refusal.

    Where tools were offered only `refusal` counts: "I cannot do that with these functions" is the right answer to a
    request that none of them fits.
    """
    if answer.get("refusal"):
        return True
    text = answer.get("content")
    if request.get("tools") or answer.get("tool_calls") or type(text) is not str:
        return False
    return len(text) <= _LONGEST_REFUSAL and _REFUSAL.match(text.strip()) is not None


def feedback_score(record: Json) -> float:
    """The score a person or a program gave the answer; NaN where nobody did."""
    feedback = record.get("feedback")
    score = feedback.get("score") if type(feedback) is dict else None
    return float(score) if type(score) in (int, float) and score is not None else math.nan
