from __future__ import annotations

from flywheel_assets.core.pacing import Pace, why_to_wait


def test_enough_records_after_the_cool_down_start_at_once() -> None:
    assert why_to_wait(Pace(10, 600), 10, 600) is None
    assert why_to_wait(Pace(10, 600), 10, None) is None


def test_too_few_records_wait_however_long_ago_the_last_turn_was() -> None:
    assert why_to_wait(Pace(10, 600), 9, 1e9) == "9 new records, 10 are waited for"


def test_the_cool_down_says_how_long_it_lasts() -> None:
    assert why_to_wait(Pace(1, 3600), 50, 1800) == "cooling down for another 30 min"
