"""Costs: what 1,000 requests cost, from tokens and a price table.

What belongs here: the sums. What does not: where the prices come from (`settings.prices`), or what a cost decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel_assets.core.rows import Prediction

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """USD per million tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """USD for that many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / _MILLION


def cost_per_1k(predictions: Iterable[Prediction], price: TokenPrice | None) -> float | None:
    """USD for 1,000 requests like these, from the tokens of the answered ones that report them.

    An answer from the cache counts like any other: this is what serving costs, not what the evaluation did. None without a
    price or without tokens.
    """
    if price is None:
        return None
    known = [
        (p.prompt_tokens, p.completion_tokens)
        for p in predictions
        if p.error is None and p.prompt_tokens is not None and p.completion_tokens is not None
    ]
    if not known:
        return None
    return 1000 * price.of(sum(prompt for prompt, _ in known), sum(completion for _, completion in known)) / len(known)


def teacher_cost_per_1k(profile: Mapping[str, Any], prices: Mapping[str, TokenPrice]) -> float | None:
    """USD for 1,000 requests of a workload's traffic, from its profile.

    The mean of the recorded `cost_usd` where records have it; else from the tokens of teachers that have a price. None
    where neither is known.
    """
    if profile["records_with_cost"]:
        return float(1000 * profile["cost_usd"] / profile["records_with_cost"])
    known = {teacher: use for teacher, use in profile["usage"].items() if teacher in prices}
    requests = sum(use["records"] for use in known.values())
    if not requests:
        return None
    usd = sum(prices[teacher].of(use["prompt_tokens"], use["completion_tokens"]) for teacher, use in known.items())
    return float(1000 * usd / requests)
