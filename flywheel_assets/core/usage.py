"""Usage: the tokens of one chat completion, as the server that made it reports them.

What belongs here: the spellings under which servers report tokens, and what of them is believed. What does not: what tokens
cost (`core.costs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flywheel_assets.core.records.measures import MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a completion, None where they were not reported or cannot be right.

    `cached` is the part of `prompt` that the server took from its prompt cache, which costs less at most providers.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None


def usage_of(completion: Any) -> Usage:
    """The usage in a chat completion. Never raises: what a server counts is no reason to lose its answer.

    Cached tokens stand in `prompt_tokens_details.cached_tokens` (OpenAI, vLLM), `prompt_cache_hit_tokens` (DeepSeek) or
    `cached_tokens` (Moonshot). More of them than the prompt has are no part of it, and not believed.
    """
    usage = completion.get("usage") if isinstance(completion, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    prompt, output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    details = usage.get("prompt_tokens_details")
    spellings = (
        details.get("cached_tokens") if isinstance(details, dict) else None,
        usage.get("prompt_cache_hit_tokens"),
        usage.get("cached_tokens"),
    )
    cached = next((count for value in spellings if (count := _count(value)) is not None), None)
    return Usage(prompt, output, cached if cached is not None and prompt is not None and cached <= prompt else None)


def _count(value: Any) -> int | None:
    if type(value) is not int and not (type(value) is float and value.is_integer()):
        return None
    return int(value) if 0 <= value <= MAX_TOKENS else None
