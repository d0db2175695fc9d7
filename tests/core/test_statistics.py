"""Intervals that cover, tests that keep their error rate, plans that add up."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from flywheel_assets.core.clusters import (
    bootstrap_means,
    cluster_codes,
    effective_clusters,
    effective_n,
    matched_n,
    tail_size,
)
from flywheel_assets.core.statistics import (
    holm,
    mcnemar_exact,
    mean_interval,
    paired_test,
    tango_bounds,
    tango_z,
    wilson,
)


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe 1998, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_tango_gives_the_published_interval() -> None:
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), 1 and 7 discordant of 21;
    # 95% interval as in Fagerland, Lydersen and Laake 2014.
    assert tango_bounds(1, 7, 21, alpha=0.025) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tango_agrees_with_what_can_be_derived_by_hand() -> None:
    # At no difference it is McNemar's statistic.
    assert tango_z(12, 5, 90, 0.0) == pytest.approx((12 - 5) / math.sqrt(12 + 5))
    # Without a discordant row the bound solves n m / (1 - m) = z^2.
    z2 = 1.6448536**2
    low, high = tango_bounds(0, 0, 60, alpha=0.05)
    assert low == pytest.approx(-z2 / (60 + z2), abs=1e-6) and high == pytest.approx(-low, abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_tango_is_antisymmetric_and_its_bounds_enclose_the_estimate(gained: int, lost: int, agreeing: int) -> None:
    n = gained + lost + agreeing
    if n == 0:
        return
    low, high = tango_bounds(gained, lost, n)
    mirrored_low, mirrored_high = tango_bounds(lost, gained, n)
    assert (low, high) == pytest.approx((-mirrored_high, -mirrored_low), abs=1e-9)
    assert -1 <= low <= (gained - lost) / n + 1e-9 and (gained - lost) / n - 1e-9 <= high <= 1


def test_one_sided_tango_bounds_cover_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    for n, gain, loss in [(60, 0.05, 0.15), (200, 0.05, 0.10), (200, 0.10, 0.10)]:
        counts, times = np.unique(rng.multinomial(n, [gain, loss, 1 - gain - loss], size=4000), axis=0, return_counts=True)
        covered = sum(t for (g, x, _), t in zip(counts, times, strict=True) if tango_bounds(g, x, n)[0] <= gain - loss)
        assert 0.935 <= covered / 4000 <= 0.975


def test_a_candidate_at_the_margin_never_passes_more_often_than_alpha_when_the_reference_is_always_right() -> None:
    """Exact, not simulated: sums the binomial probabilities of every count of losses that passes."""
    for margin in (0.02, 0.05, 0.1):
        for n in (60, 137, 200, 399, 1000):
            passing = 0.0
            for lost in range(int(n * margin) + 1):
                scores = np.ones(n)
                scores[:lost] = 0.0
                if paired_test(scores, np.ones(n), margin=margin).low <= -margin:
                    break
                passing += binom.pmf(lost, n, margin)
            assert passing <= 0.05


def test_bound_and_p_value_of_a_paired_test_say_the_same() -> None:
    rng = np.random.default_rng(3)
    reference = (rng.random(150) < 0.9).astype(float)
    for share in (0.0, 0.02, 0.05, 0.1, 0.3):
        candidate = np.where(rng.random(150) < share, 1 - reference, reference)
        for margin in (0.02, 0.05, 0.1, 0.2):
            test = paired_test(candidate, reference, margin=margin)
            assert (test.low > -margin) is (test.p_non_inferior < 0.05)
            assert (test.high < -margin) is (test.p_inferior < 0.05)


def test_rows_of_one_conversation_are_not_counted_as_independent() -> None:
    rng = np.random.default_rng(5)
    once = (rng.random(100) < 0.95).astype(float)
    repeated, clusters = np.repeat(once, 5), np.repeat(np.arange(100), 5)
    alone = paired_test(once, np.ones(100), margin=0.05)
    fivefold = paired_test(repeated, np.ones(500), clusters, margin=0.05)
    naive = paired_test(repeated, np.ones(500), margin=0.05)
    # A hundred conversations, less what it costs that their spread is estimated.
    assert 94 < fivefold.n_effective < 100
    assert alone.low - 5e-3 < fivefold.low < alone.low and naive.low > alone.low + 0.01
    interval, naive_interval = mean_interval(repeated, clusters), mean_interval(repeated)
    assert interval.high - interval.low > 1.8 * (naive_interval.high - naive_interval.low)


def test_where_all_rows_agree_every_conversation_counts_once() -> None:
    codes = np.repeat(np.arange(50), 4)
    assert matched_n(np.ones(200), codes) == 50.0
    assert effective_n(np.zeros(200), codes, guard=-1.0, size=4.0) == pytest.approx(50, rel=0.1)


def test_the_guarded_bootstrap_is_the_exact_binomial_bound_on_binary_scores() -> None:
    differences = np.zeros(100)
    differences[:4] = -1.0
    means = bootstrap_means(differences, cluster_codes(None, 100), guard=-1.0, resamples=100_000)
    assert np.quantile(means, 0.05) == pytest.approx(-beta.ppf(0.95, 5, 96), abs=1e-3)


def test_a_continuous_candidate_at_the_margin_passes_no_more_often_than_alpha() -> None:
    """Skewed as text scores are: mostly right, sometimes half right, sometimes wrong; mean loss = margin."""
    rng = np.random.default_rng(11)
    draws = rng.choice([0.0, 0.5, 1.0], p=[0.03, 0.04, 0.93], size=(600, 80))
    passed = sum(paired_test(x, np.ones(80), margin=0.05, resamples=2000).p_non_inferior <= 0.05 for x in draws)
    assert passed / 600 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("per_cluster", [1, 4])
def test_intervals_of_scores_between_0_and_1_cover_about_as_often_as_they_say(per_cluster: int) -> None:
    rng = np.random.default_rng(13)
    covered, trials = 0, 2000
    codes = np.repeat(np.arange(60), per_cluster)
    for _ in range(trials):
        scores = np.where(rng.random(codes.size) < 0.5, rng.beta(2, 1, 60)[codes], rng.beta(2, 1, codes.size))
        interval = mean_interval(scores, codes)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 0.93 <= covered / trials <= 0.965


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_independent_yes_or_no_rows_count_as_what_they_are(scores: list[bool]) -> None:
    assert matched_n(np.array(scores, float), np.arange(len(scores))) == len(scores)


def test_equal_scores_do_not_make_a_certain_interval() -> None:
    interval = mean_interval(np.full(50, 0.5))
    assert interval.low < 0.5 < interval.high
    assert mean_interval(np.ones(50)).low < 0.95


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 7) == pytest.approx(2 * binom.cdf(1, 8, 0.5)) == mcnemar_exact(7, 1)
    assert mcnemar_exact(5, 5) == 1.0


def test_holm_multiplies_by_the_hypotheses_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9]) == [0.9] and holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_value_smaller_nor_larger_than_bonferroni(p_values: list[float]) -> None:
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, len(p_values) * raw) + 1e-12


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows twice"):
        paired_test([1.0], [1.0, 0.0], margin=0.05)
    with pytest.raises(ValueError, match="3 clusters for 2 rows"):
        mean_interval([1.0, 0.0], ["a", "b", "c"])
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_a_reference_that_is_always_right_cannot_be_beaten() -> None:
    test = paired_test(np.array([0.0] * 2 + [1.0] * 58), np.ones(60), margin=0.05)
    assert test.high < 0.0 and test.low == pytest.approx(-beta.ppf(0.95, 3, 58))


MARGINS = st.floats(-1.0, 1.0, allow_nan=False)


@st.composite
def paired_rows(draw: st.DrawFn) -> tuple[list[float], list[float], list[int] | None]:
    """Rows as they may come: right or wrong or graded, all equal or not, alone, in uneven conversations, or all in one."""
    scores = draw(
        st.sampled_from([st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0.0, 1.0)])
    )
    n = draw(st.integers(1, 60))
    ours = draw(st.one_of(st.lists(scores, min_size=n, max_size=n), scores.map(lambda score: [score] * n)))
    theirs = draw(st.one_of(st.just([1.0] * n), st.lists(scores, min_size=n, max_size=n), st.just(ours)))
    codes = st.integers(0, draw(st.integers(0, n)))
    return ours, theirs, draw(st.one_of(st.none(), st.lists(codes, min_size=n, max_size=n)))


@given(paired_rows(), st.lists(MARGINS, min_size=2, max_size=4), st.booleans())
def test_every_paired_test_gives_probabilities_and_ordered_bounds_that_follow_the_margin(
    rows: tuple[list[float], list[float], list[int] | None], margins: list[float], by_construction: bool
) -> None:
    ours, theirs, clusters = rows
    p_values = []
    for margin in sorted({-1.0, 0.0, 1.0, *margins}):
        test = paired_test(ours, theirs, clusters, margin=margin, resamples=200, by_construction=by_construction)
        assert -1.0 <= test.low <= test.difference + 1e-9 and test.difference - 1e-9 <= test.high <= 1.0
        assert 0.0 <= test.p_non_inferior <= 1.0 and 0.0 <= test.p_inferior <= 1.0
        assert 1.0 <= test.clusters_effective <= test.clusters + 1e-9 and 1.0 <= test.n_effective <= test.n + 1e-9
        p_values.append((test.p_non_inferior, test.p_inferior))
    for (strict, bad_strict), (lax, bad_lax) in itertools.pairwise(p_values):
        # A laxer margin is easier to meet and harder to miss.
        assert lax <= strict + 1e-9 and bad_strict <= bad_lax + 1e-9


@given(st.integers(0, 30), st.integers(0, 200), st.floats(-1.0, 0.0))
def test_a_gain_over_what_is_always_right_is_never_shown(lost: int, kept: int, margin: float) -> None:
    if lost + kept == 0:
        return
    scores = [0.0] * lost + [1.0] * kept
    for by_construction in (True, False):
        test = paired_test(scores, np.ones(lost + kept), margin=margin, by_construction=by_construction)
        assert test.p_non_inferior == 1.0


@given(paired_rows())
def test_an_interval_holds_its_mean_and_stays_between_0_and_1(
    rows: tuple[list[float], list[float], list[int] | None],
) -> None:
    scores, _, clusters = rows
    interval = mean_interval(scores, clusters)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


def test_what_is_no_score_or_no_margin_is_refused() -> None:
    for scores in ([math.nan, 1.0], [1.5, 0.0], [-0.1, 0.0]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            paired_test(scores, [1.0, 1.0], margin=0.05)
    for margin in (math.nan, 1.5, -2.0):
        with pytest.raises(ValueError, match="between -1 and 1"):
            paired_test([1.0, 1.0], [1.0, 1.0], margin=margin)


def test_conversations_of_uneven_size_are_worth_less_than_their_number() -> None:
    assert effective_clusters(cluster_codes([i // 4 for i in range(80)], 80)) == pytest.approx(20.0)
    uneven = np.repeat(np.arange(105), [1] * 100 + [30] * 5)
    assert effective_clusters(uneven) == pytest.approx(250**2 / (100 + 5 * 900))
    test = paired_test(np.ones(250), np.ones(250), uneven, margin=0.05)
    assert test.clusters == 105 and test.clusters_effective < 15


def test_the_imagined_lost_conversation_is_as_long_as_those_with_which_the_margin_is_lost_fastest() -> None:
    sizes = np.array([1] * 150 + [20, 30])
    # 10 of 200 rows fit into the longest; 50 into the two longest; of 100, another 50 single ones.
    assert tail_size(sizes, 0.05) == 30.0
    assert tail_size(sizes, 0.25) == pytest.approx(50 / 2)
    assert tail_size(sizes, 0.5) == pytest.approx(100 / 52)
    assert tail_size(sizes, 0.0) == 30.0 and tail_size(sizes, -0.3) == 30.0
    assert tail_size(sizes, 1.0) == pytest.approx(200 / 152)


@pytest.mark.parametrize(
    ("conversations", "longest", "share_long", "margin"), [(150, 30, 0.05, 0.1), (400, 30, 0.05, 0.1), (400, 3, 0.05, 0.05)]
)
def test_a_model_that_loses_whole_long_conversations_at_the_margin_passes_no_more_often_than_alpha(
    conversations: int, longest: int, share_long: float, margin: float
) -> None:
    """A few long conversations beside many of one row; the lost ones are lost whole. It passed in up to 39% once."""
    rng = np.random.default_rng(17)
    passed, trials = 0, 600
    for _ in range(trials):
        sizes = np.where(rng.random(conversations) < share_long, longest, 1)
        codes = np.repeat(np.arange(conversations), sizes)
        scores = 1.0 - (rng.random(conversations) < margin)[codes]
        test = paired_test(scores, np.ones(codes.size), codes, margin=margin)
        passed += test.clusters_effective >= 30 and test.p_non_inferior <= 0.05
    assert passed / trials <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)


def test_intervals_hold_the_truth_where_a_few_conversations_are_long() -> None:
    rng = np.random.default_rng(19)
    covered, trials, mean = 0, 800, 0.9
    for _ in range(trials):
        sizes = np.minimum(40, 1 + rng.pareto(1.3, 300)).astype(int)
        codes = np.repeat(np.arange(300), sizes)
        own = rng.beta(mean * 7 / 3, (1 - mean) * 7 / 3, 300)[codes]
        interval = mean_interval((rng.random(codes.size) < own).astype(float), codes)
        covered += interval.low <= mean <= interval.high
    assert covered / trials >= 0.93
