"""What a partition reads from the settings: the part of its key that flywheel.yaml decides."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.inputs import settings_slice, token_prices
from flywheel_assets.settings import Settings


def settings_with(price: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "candidates": [{"id": "small", "model": "https://models.example/v1", "engine": "openai"}],
            "prices": {"small": price},
        }
    )


def evaluation_slice(price: dict[str, Any]) -> Json:
    return settings_slice(settings_with(price), graph.EVALS[graph.Variant.BASE], Partition("w", "small"))


def test_a_price_without_cached_tokens_stands_in_the_keys_as_it_did_before_they_had_one() -> None:
    price = {"prompt": 2.0, "completion": 8.0}
    assert evaluation_slice(price)["price"] == price
    for asset in (graph.COMPARISON, graph.DECISION):
        assert settings_slice(settings_with(price), asset, Partition("w"))["prices"] == {"small": price}


@pytest.mark.parametrize("cached", [0.0, 0.5])
def test_a_price_of_cached_tokens_is_a_part_of_the_keys(cached: float) -> None:
    price = {"prompt": 2.0, "completion": 8.0, "cached_prompt": cached}
    assert evaluation_slice(price)["price"] == price
    assert token_prices(settings_with(price))["small"].cached_prompt == cached
