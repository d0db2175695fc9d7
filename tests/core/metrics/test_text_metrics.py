"""What F1 and exact match promise for written answers."""

from __future__ import annotations

import pytest

from flywheel_assets.core.metrics import text
from flywheel_assets.core.rows import Answer, EvalRow


def row(reference: str | None) -> EvalRow:
    return EvalRow("r1", "t1", "c1", {"messages": []}, Answer(reference), "single")


@pytest.mark.parametrize(
    ("reference", "said", "score"),
    [
        ("The cat sat.", "the CAT sat", 1.0),
        ("the cat sat", "the cat ran away", 2 * 1 / (2 + 3)),
        ("yes yes", "yes", 2 / 3),
        ("yes", "no", 0.0),
        ("", "", 1.0),
        ("the", "!", 1.0),
        ("word", "", 0.0),
        ("word", None, 0.0),
        (None, None, 1.0),
    ],
)
def test_f1_is_the_overlap_of_normalised_tokens(reference: str | None, said: str | None, score: float) -> None:
    assert text.f1(row(reference), Answer(said)) == pytest.approx(score)


def test_exact_match_forgives_only_blanks_around_the_text() -> None:
    assert text.exact_match(row("get_weather"), Answer(" get_weather\n")) == 1.0
    assert text.exact_match(row("get_weather"), Answer("Get_Weather")) == 0.0
    assert text.exact_match(row("get_weather"), Answer(None)) == 0.0
