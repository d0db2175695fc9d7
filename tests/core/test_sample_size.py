"""The table of rows a margin needs, and plans after an inconclusive verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from flywheel_assets.core.sample_size import lossless_rows, needed_rows, rows_to_settle
from flywheel_assets.core.statistics import paired_test


@pytest.mark.parametrize(
    ("discordance", "margin", "rows"),
    [(0.1, 0.02, 1546), (0.1, 0.03, 687), (0.1, 0.05, 248), (0.2, 0.02, 3092), (0.2, 0.03, 1374), (0.2, 0.05, 495)],
)
def test_the_published_rule_of_thumb_is_never_undercut_and_nearly_met(discordance: float, margin: float, rows: int) -> None:
    """6.18 d / margin^2 forgets that the two disagree more at the margin than as planned."""
    assert rows <= needed_rows(discordance, margin) <= 1.12 * rows


@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("lost", [0.005, 0.02, 0.04])
def test_a_plan_for_a_candidate_that_only_loses_is_exact(alpha: float, lost: float) -> None:
    n = needed_rows(lost, 0.05, difference=-lost, alpha=alpha)
    for rows in (n, n + 1, n + 7):
        most = max(k for k in range(rows) if binom.cdf(k, rows, 0.05) <= alpha)
        assert binom.cdf(most, rows, lost) >= 0.8
    assert n == lossless_rows(0.05, alpha=alpha) or binom.cdf(most - 1, n, lost) < 0.97


def test_a_gain_is_planned_for_like_a_margin() -> None:
    rng = np.random.default_rng(4)
    n = needed_rows(0.2, -0.02, difference=0.1)
    passed = 0
    for gained, lost, _ in rng.multinomial(n, [0.15, 0.05, 0.8], size=600):
        candidate, reference = np.ones(n), np.ones(n)
        candidate[:lost] = 0.0
        reference[lost : lost + gained] = 0.0
        passed += paired_test(candidate, reference, margin=-0.02).p_non_inferior <= 0.05
    assert 0.75 <= passed / 600 <= 0.88
    with pytest.raises(ValueError, match="never shown"):
        needed_rows(0.2, -0.1, difference=0.1)


def test_no_plan_is_smaller_than_what_a_candidate_without_a_loss_needs() -> None:
    for margin in (0.01, 0.05, 0.2):
        n = needed_rows(0.0, margin)
        assert n == lossless_rows(margin)
        assert paired_test(np.ones(n), np.ones(n), margin=margin).low > -margin
        assert paired_test(np.ones(n - 1), np.ones(n - 1), margin=margin).low <= -margin


def test_the_planned_rows_give_about_the_promised_power() -> None:
    rng = np.random.default_rng(2)
    n = needed_rows(0.1, 0.05)
    passed = 0
    for gained, lost, _ in rng.multinomial(n, [0.05, 0.05, 0.9], size=1500):
        candidate, reference = np.ones(n), np.ones(n)
        candidate[:lost] = 0.0
        reference[lost : lost + gained] = 0.0
        passed += paired_test(candidate, reference, margin=0.05).p_non_inferior <= 0.05
    assert 0.77 <= passed / 1500 <= 0.86


@given(
    n=st.integers(1, 5000), lost=st.floats(0, 1), gained=st.floats(0, 1), margin=st.floats(0.01, 0.5), arms=st.integers(1, 9)
)
def test_the_rows_that_would_settle_it_are_always_more_and_never_absurdly_many(
    n: int, lost: float, gained: float, margin: float, arms: int
) -> None:
    share = max(1.0, lost + gained)
    lost, gained = lost / share, gained / share
    # Two shares that make up the whole may add to a little more than it.
    discordance = min(1.0, gained + lost)
    total = rows_to_settle(
        n=n, difference=gained - lost, discordance=discordance, margin=margin, alpha=0.05 / arms, power=0.8
    )
    # Half a margin of distance, every row discordant, nine arms: 4 z^2 / margin^2.
    assert n < total <= max(2 * n, 60 / margin**2)


def test_a_plan_for_an_impossible_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin must lie between -1 and 1; 1 was given"):
        needed_rows(0.1, 1)
    with pytest.raises(ValueError, match="discordance"):
        needed_rows(1.1, 0.05)
