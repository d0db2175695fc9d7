"""What 1,000 requests cost."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core.costs import (
    TokenPrice,
    cost_per_1k,
    full_price_note,
    teacher_cost_per_1k,
    teacher_full_price_notes,
)
from flywheel_assets.core.rows import Answer, Prediction

PRICE = TokenPrice(prompt=2.0, completion=8.0)


def said(
    prompt: int | None,
    completion: int | None,
    *,
    error: str | None = None,
    cached: bool = False,
    cached_tokens: int | None = None,
) -> Prediction:
    answer = None if error else Answer("ok")
    return Prediction(
        "r",
        answer,
        prompt_tokens=prompt,
        completion_tokens=completion,
        error=error,
        cached=cached,
        cached_tokens=cached_tokens,
    )


def profile(*, cost_usd: float = 0.0, with_cost: int = 0, **usage: tuple[int, ...]) -> dict[str, Any]:
    # Profiles made before cached tokens were counted have no fourth number.
    names = ("records", "prompt_tokens", "completion_tokens", "cached_tokens")
    return {
        "cost_usd": cost_usd,
        "records_with_cost": with_cost,
        "usage": {teacher.replace("_", "-"): dict(zip(names, use, strict=False)) for teacher, use in usage.items()},
    }


def test_a_request_costs_its_tokens_at_their_prices() -> None:
    # 500 * $2 + 100 * $8 per million is $0.0018 a request.
    assert cost_per_1k([said(500, 100)], PRICE) == pytest.approx(1.8)
    assert cost_per_1k([said(500, 100), said(0, 0, cached=True)], PRICE) == pytest.approx(0.9)


def test_answers_without_tokens_and_errors_say_nothing_about_the_cost() -> None:
    assert cost_per_1k([said(500, 100), said(None, None), said(500, None), said(9, 9, error="500")], PRICE) == pytest.approx(
        1.8
    )
    assert cost_per_1k([said(None, None)], PRICE) is cost_per_1k([], PRICE) is cost_per_1k([said(5, 5)], None) is None
    assert cost_per_1k([said(5, 5)], TokenPrice(0, 0)) == 0.0


def test_what_the_records_say_the_teacher_cost_comes_before_the_price_table() -> None:
    known = profile(cost_usd=0.5, with_cost=100, big_model=(10, 5000, 1000))
    assert teacher_cost_per_1k(known, {"big-model": PRICE}) == pytest.approx(5.0)


def test_else_the_teachers_tokens_are_priced_and_teachers_without_a_price_left_out() -> None:
    known = profile(big_model=(10, 5000, 1000), other=(90, 1, 1))
    assert teacher_cost_per_1k(known, {"big-model": PRICE}) == pytest.approx(1.8)
    assert teacher_cost_per_1k(known, {"big-model": PRICE, "other": TokenPrice(0, 0)}) == pytest.approx(0.18)
    assert teacher_cost_per_1k(known, {}) is None
    assert teacher_cost_per_1k(profile(), {"big-model": PRICE}) is None


CACHING = TokenPrice(prompt=2.0, completion=8.0, cached_prompt=0.5)


def test_cached_prompt_tokens_cost_what_the_table_says_of_them() -> None:
    # 200 * $2 + 300 * $0.5 + 100 * $8 per million is $0.00135 a request.
    assert cost_per_1k([said(500, 100, cached_tokens=300)], CACHING) == pytest.approx(1.35)
    assert cost_per_1k([said(500, 100)], CACHING) == pytest.approx(1.8)
    known = profile(big_model=(10, 5000, 1000, 3000))
    assert teacher_cost_per_1k(known, {"big-model": CACHING}) == pytest.approx(1.35)
    assert teacher_cost_per_1k(profile(big_model=(10, 5000, 1000)), {"big-model": CACHING}) == pytest.approx(1.8)


def test_a_cached_token_may_be_free() -> None:
    assert cost_per_1k([said(500, 0, cached_tokens=500)], TokenPrice(2.0, 8.0, cached_prompt=0.0)) == 0.0


def test_without_a_price_of_their_own_cached_tokens_cost_the_full_price_and_it_is_said() -> None:
    known = profile(big_model=(10, 1200, 300, 1024))
    assert teacher_cost_per_1k(known, {"big-model": PRICE}) == pytest.approx(1000 * (2 * 1200 + 8 * 300) / 1e6 / 10)
    assert teacher_full_price_notes(known, {"big-model": PRICE}) == [
        "85% of the teacher's prompt tokens were cached; prices.big-model has no cached_prompt, so they are counted at the "
        "full price."
    ]
    assert full_price_note("small's", "small", 1200, 1024, PRICE) == (
        "85% of small's prompt tokens were cached; prices.small has no cached_prompt, so they are counted at the full price."
    )


def test_nothing_is_said_where_no_full_price_was_counted() -> None:
    known = profile(big_model=(10, 1200, 300, 1024))
    assert teacher_full_price_notes(known, {"big-model": CACHING}) == []
    assert teacher_full_price_notes(known, {}) == []
    assert teacher_full_price_notes(profile(big_model=(10, 1200, 300, 0)), {"big-model": PRICE}) == []
    assert teacher_full_price_notes(profile(big_model=(10, 1200, 300)), {"big-model": PRICE}) == []
    # The records say what they cost, caching and all.
    logged = profile(cost_usd=1.0, with_cost=10, big_model=(10, 1200, 300, 1024))
    assert teacher_full_price_notes(logged, {"big-model": PRICE}) == []


def test_a_share_that_rounds_to_nothing_is_not_called_nothing() -> None:
    assert full_price_note("small's", "small", 100_000, 3, PRICE).startswith("less than 1% of small's")
