"""Tokens as servers report them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.core.usage import Usage, usage_of


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 1200, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 1024}}, 1024),
        ({"prompt_tokens": 1200, "completion_tokens": 30, "prompt_cache_hit_tokens": 1024}, 1024),
        ({"prompt_tokens": 1200, "completion_tokens": 30, "cached_tokens": 1024}, 1024),
        ({"prompt_tokens": 1200, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 0}}, 0),
        ({"prompt_tokens": 1200, "completion_tokens": 30, "prompt_tokens_details": None}, None),
        ({"prompt_tokens": 1200, "completion_tokens": 30}, None),
        ({"prompt_tokens": 1200, "completion_tokens": 30, "cached_tokens": 1201}, None),
    ],
)
def test_cached_tokens_are_a_part_of_the_prompt_however_they_are_spelled(usage: Any, expected: int | None) -> None:
    assert usage_of({"usage": usage}) == Usage(1200, 30, expected)


@pytest.mark.parametrize("odd", [-1, 1e300, float("inf"), float("nan"), "12", True, 1.5, 10**18, [], {}, None])
def test_a_count_that_cannot_be_right_is_not_known(odd: Any) -> None:
    assert usage_of({"usage": {"prompt_tokens": odd, "completion_tokens": 3}}) == Usage(None, 3)
    assert usage_of({"usage": {"prompt_tokens": 5, "completion_tokens": 3, "cached_tokens": odd}}) == Usage(5, 3)
    assert usage_of({"usage": odd}) == usage_of(odd) == Usage()


def test_a_whole_number_written_as_a_float_is_one() -> None:
    assert usage_of({"usage": {"prompt_tokens": 12.0, "completion_tokens": 3}}) == Usage(12, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cached_tokens", "x"]), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(
    ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "prompt_cache_hit_tokens", "cached_tokens"]
)


@given(st.dictionaries(names, json_values))
def test_whatever_a_server_reports_cached_tokens_never_exceed_the_prompt(usage: dict[str, Any]) -> None:
    found = usage_of({"usage": usage})
    assert found.cached is None or (found.prompt is not None and 0 <= found.cached <= found.prompt)
