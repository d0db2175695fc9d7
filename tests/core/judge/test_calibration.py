"""What a judge's rate means once it is known how often the judge is right."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel_assets.core.judge import Calibration, calibrate, corrected_rate
from flywheel_assets.core.judge.calibration import MIN_LABELS


def said(right: int, n: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def test_labels_are_counted_by_what_the_judge_made_of_them() -> None:
    labels = [True, True, True, False, False, True]
    verdicts = [True, True, False, False, True, None]
    found = calibrate(labels, verdicts)
    assert found == Calibration(right=3, hits=2, wrong=2, rejections=1, unparsable=1)
    assert (found.sensitivity, found.specificity) == (pytest.approx(2 / 3), 0.5)


def test_the_rate_is_corrected_by_the_formula() -> None:
    corrected = corrected_rate(said(70, 100), Calibration(100, 90, 100, 80))
    # (0.7 + 0.8 - 1) / (0.8 + 0.9 - 1)
    assert corrected.value == pytest.approx(5 / 7)
    assert corrected.low < 5 / 7 < corrected.high
    assert (corrected.n, corrected.calibration.unusable) == (100, None)


def test_a_perfect_judge_is_believed_and_few_labels_leave_more_open() -> None:
    few, many = (corrected_rate(said(80, 100), Calibration(n, n, n, n)) for n in (20, 2000))
    assert few.value == many.value == pytest.approx(0.8)
    assert few.high - few.low > many.high - many.low > 0.1


def test_the_rate_never_leaves_0_to_1() -> None:
    judge = Calibration(50, 45, 50, 40)
    for share, value in ((0, 0.0), (100, 1.0)):
        corrected = corrected_rate(said(share, 100), judge)
        assert (corrected.value, 0.0 <= corrected.low <= corrected.high <= 1.0) == (value, True)


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (Calibration(MIN_LABELS - 1, 9, 50, 45), "9 labelled answers are right, and 10 are needed"),
        (Calibration(50, 45, 0, 0), "0 labelled answers are wrong, and 10 are needed"),
        (Calibration(50, 25, 50, 25), "no better than a coin"),
        (Calibration(50, 10, 50, 20), "no better than a coin"),
    ],
)
def test_a_judge_that_cannot_be_corrected_says_why_and_gives_no_number(judge: Calibration, reason: str) -> None:
    corrected = corrected_rate(said(70, 100), judge)
    assert (corrected.value, corrected.low, corrected.high) == (None, None, None)
    assert reason in corrected.to_json()["unusable"]


def test_rows_of_one_conversation_leave_more_open() -> None:
    judge = Calibration(500, 480, 500, 470)
    verdicts = np.repeat(np.random.default_rng(0).random(20) < 0.6, 10)
    alone = corrected_rate(verdicts, judge)
    together = corrected_rate(verdicts, judge, [f"c{i // 10}" for i in range(200)])
    assert together.value == alone.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("theta", "q1", "q0", "n", "labels"),
    [(0.8, 0.9, 0.8, 300, 60), (0.5, 0.7, 0.75, 200, 40), (0.95, 0.97, 0.9, 1000, 200), (0.1, 0.85, 0.95, 100, 30)],
)
def test_the_interval_holds_the_true_rate_about_95_times_in_100(
    theta: float, q1: float, q0: float, n: int, labels: int
) -> None:
    rng = np.random.default_rng(20260901)
    held, runs = 0, 2000
    for _ in range(runs):
        judge = Calibration(labels, int(rng.binomial(labels, q1)), labels, int(rng.binomial(labels, q0)))
        right = int(rng.binomial(n, theta * q1 + (1 - theta) * (1 - q0)))
        corrected = corrected_rate(said(right, n), judge)
        held += corrected.low <= theta <= corrected.high
    # Three standard errors of 2,000 runs below 95%; small samples may be a little cautious, never the other way.
    assert 0.935 <= held / runs <= 0.995
