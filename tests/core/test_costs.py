"""What 1,000 requests cost."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core.costs import TokenPrice, cost_per_1k, teacher_cost_per_1k
from flywheel_assets.core.rows import Answer, Prediction

PRICE = TokenPrice(prompt=2.0, completion=8.0)


def said(prompt: int | None, completion: int | None, *, error: str | None = None, cached: bool = False) -> Prediction:
    answer = None if error else Answer("ok")
    return Prediction("r", answer, prompt_tokens=prompt, completion_tokens=completion, error=error, cached=cached)


def profile(*, cost_usd: float = 0.0, with_cost: int = 0, **usage: tuple[int, int, int]) -> dict[str, Any]:
    names = ("records", "prompt_tokens", "completion_tokens")
    return {
        "cost_usd": cost_usd,
        "records_with_cost": with_cost,
        "usage": {teacher.replace("_", "-"): dict(zip(names, use, strict=True)) for teacher, use in usage.items()},
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
