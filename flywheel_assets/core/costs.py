"""Costs: what 1,000 requests cost, from tokens and a price table.

What belongs here: the sums. What does not: where the prices come from (`settings.prices`), or what a cost decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel_assets.core.records.measures import MAX_COST_USD
from flywheel_assets.core.rows import Prediction

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """USD per million tokens. `cached_prompt` is for prompt tokens from the server's cache; None: as much as the others."""

    prompt: float
    completion: float
    cached_prompt: float | None = None

    def of(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """USD for that many tokens. `cached_tokens` are a part of `prompt_tokens`."""
        cached_price = self.prompt if self.cached_prompt is None else self.cached_prompt
        prompt = self.prompt * (prompt_tokens - cached_tokens) + cached_price * cached_tokens
        return (prompt + self.completion * completion_tokens) / _MILLION


def cost_per_1k(predictions: Iterable[Prediction], price: TokenPrice | None) -> float | None:
    """USD for 1,000 requests like these, from the tokens of the answered ones that report them.

    An answer from the cache counts like any other: this is what serving costs, not what the evaluation did. None without a
    price or without tokens.
    """
    if price is None:
        return None
    known = [
        (p.prompt_tokens, p.completion_tokens, p.cached_tokens or 0)
        for p in predictions
        if p.error is None and p.prompt_tokens is not None and p.completion_tokens is not None
    ]
    if not known:
        return None
    prompt, completion, cached = (sum(counts) for counts in zip(*known, strict=True))
    return 1000 * price.of(prompt, completion, cached) / len(known)


def teacher_cost_per_1k(profile: Mapping[str, Any], prices: Mapping[str, TokenPrice]) -> float | None:
    """USD for 1,000 requests of a workload's traffic, from its profile.

    The mean of the recorded `cost_usd` where records have it; else from the tokens of teachers that have a price. None
    where neither is known.
    """
    if (logged := _logged_cost(profile)) is not None:
        return 1000 * logged
    known = {teacher: use for teacher, use in profile["usage"].items() if teacher in prices}
    requests = sum(use["records"] for use in known.values())
    if not requests:
        return None
    usd = sum(
        prices[teacher].of(use["prompt_tokens"], use["completion_tokens"], use.get("cached_tokens", 0))
        for teacher, use in known.items()
    )
    return float(1000 * usd / requests)


def teacher_full_price_notes(profile: Mapping[str, Any], prices: Mapping[str, TokenPrice]) -> list[str]:
    """One sentence for each teacher whose cached tokens `teacher_cost_per_1k` counts at the full price."""
    if _logged_cost(profile) is not None:
        return []
    notes = (
        full_price_note("the teacher's", name, use["prompt_tokens"], use.get("cached_tokens", 0), prices.get(name))
        for name, use in profile["usage"].items()
    )
    return [note for note in notes if note]


def full_price_note(whose: str, name: str, prompt_tokens: int, cached_tokens: int, price: TokenPrice | None) -> str:
    """What a reader of a cost must know where cached tokens were counted at the full price; empty where none were.

    `name` is the key under `prices`, `whose` says whose tokens they are, in the genitive.
    """
    if not cached_tokens or price is None or price.cached_prompt is not None:
        return ""
    share = round(100 * cached_tokens / prompt_tokens)
    return (
        f"{f'{share}%' if share else 'less than 1%'} of {whose} prompt tokens were cached; prices.{name} has no "
        "cached_prompt, so they are counted at the full price."
    )


def _logged_cost(profile: Mapping[str, Any]) -> float | None:
    """The mean `cost_usd` of the records that have one; None where none has, or where it cannot be right."""
    records, usd = profile["records_with_cost"], profile["cost_usd"]
    # Profiles of earlier versions summed whatever was logged: 1e308, or infinity, which JSON holds as null.
    if not records or usd is None or not 0 <= usd / records <= MAX_COST_USD:
        return None
    return float(usd / records)
