from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.pacing import Arrivals, Pace, lag_s, why_to_wait

PACE = Pace(min_new_records=10, cooldown_s=600, max_lag_s=3600)
AUTO = Pace(min_new_records=None, cooldown_s=0, max_lag_s=3600, first_records=50)
CAME = Arrivals(new=10, known=100, since_s=600)


def test_enough_records_after_the_cool_down_start_at_once() -> None:
    assert why_to_wait(PACE, CAME) is None


def test_a_first_turn_waits_for_the_records_of_a_first_dataset() -> None:
    assert why_to_wait(AUTO, Arrivals(49)) == "49 new records, 50 are waited for"
    assert why_to_wait(AUTO, Arrivals(50)) is None


def test_too_few_records_wait_until_the_promised_lag_is_near() -> None:
    few = replace(CAME, new=9)
    assert why_to_wait(PACE, few) == "9 new records, 10 are waited for, at most another 50 min"
    assert why_to_wait(PACE, replace(few, since_s=3600)) is None


def test_a_turn_that_takes_long_begins_early_enough_to_be_in_time() -> None:
    slow = replace(CAME, new=1, turn_s=500, since_s=2600)
    assert why_to_wait(PACE, slow) is None
    assert why_to_wait(PACE, replace(slow, turn_s=400)) is not None
    # One that takes longer than promised must not keep a workload at work all the time.
    assert why_to_wait(PACE, replace(slow, turn_s=1e9, since_s=1700)) is not None


def test_the_cool_down_says_how_long_it_lasts_and_outlasts_the_promise() -> None:
    paced = replace(PACE, cooldown_s=7200)
    assert why_to_wait(paced, replace(CAME, new=50, since_s=5400)) == "cooling down for another 30 min"
    assert lag_s(paced) == 7200 and lag_s(PACE) == 3600


@pytest.mark.parametrize(("flowing", "decided", "needed"), [(True, True, 200), (False, True, 20), (True, False, 20)])
def test_how_many_records_are_worth_a_turn(flowing: bool, decided: bool, needed: int) -> None:
    came = Arrivals(new=needed, known=200, since_s=0, flowing=flowing, decided=decided)
    assert why_to_wait(AUTO, came) is None
    assert why_to_wait(AUTO, replace(came, new=needed - 1)) is not None


@settings(max_examples=200, deadline=None)
@given(
    rate=st.floats(0.001, 20),
    turn=st.floats(1, 600),
    interval=st.floats(5, 60),
    max_lag=st.floats(1500, 20_000),
    first=st.integers(50, 2000),
)
def test_steady_traffic_is_decided_on_in_time_and_in_few_turns(
    rate: float, turn: float, interval: float, max_lag: float, first: int
) -> None:
    # A day of one workload, as the sensor sees it: `rate` records a second, turns of `turn` seconds.
    pace = Pace(None, 0, max_lag)
    clock, read_at, decided_at, known, turns, worst, day = 0.0, 0.0, turn, first, 1, 0.0, 86_400.0
    while clock < day:
        clock += interval
        arrived = first + int(rate * clock)
        if clock < decided_at or arrived == known:
            continue
        oldest_waiting = (known - first + 1) / rate
        worst = max(worst, clock - oldest_waiting)
        if why_to_wait(pace, Arrivals(arrived - known, known, clock - read_at, turn, flowing=True)) is None:
            worst = max(worst, clock + turn - oldest_waiting)
            read_at, known, turns, decided_at = clock, arrived, turns + 1, clock + turn
    assert worst <= max_lag + 2 * interval
    doublings = math.log2((first + rate * day) / first)
    assert turns <= 2 + doublings + day / (max_lag / 2)
