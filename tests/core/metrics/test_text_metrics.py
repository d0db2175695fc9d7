"""What F1 and exact match promise for written answers."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


SQUAD_TEXTS = st.text(
    st.sampled_from("aAnTthe .,_-'\t\n\x00\x1c—éİß日\u200b\u00a0\ud800\u01c5") | st.characters(), max_size=40
)


@settings(deadline=None)
@given(SQUAD_TEXTS, SQUAD_TEXTS)
def test_f1_equals_the_textbook_definition_on_any_text(expected: str, said: str) -> None:
    def tokens(of: str) -> list[str]:
        plain = "".join(character for character in of.lower() if character not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", plain).split()

    assert list(text.normalized_tokens(expected)) == tokens(expected)
    wanted, found = tokens(expected), tokens(said)
    shared = sum((Counter(wanted) & Counter(found)).values())
    textbook = 2 * shared / (len(wanted) + len(found)) if wanted and found else float(wanted == found)
    assert text.f1(row(expected), Answer(said)) == pytest.approx(textbook)


def test_exact_match_forgives_only_blanks_around_the_text() -> None:
    assert text.exact_match(row("get_weather"), Answer(" get_weather\n")) == 1.0
    assert text.exact_match(row("get_weather"), Answer("Get_Weather")) == 0.0
    assert text.exact_match(row("get_weather"), Answer(None)) == 0.0


@pytest.mark.parametrize(
    ("reference", "said", "score"),
    [
        ("the cat sat on the mat", "The cat, sat on the mat!", 1.0),
        # Lin (2004): the longest common subsequence of these is "police the gunman", and of the third "the gunman".
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("a b c d", "a c", 2 * 2 / (4 + 2)),
        ("Zürich ist groß", "zürich IST klein", 2 / 3),
        ("snake_case", "snake case", 1.0),
        ("", "...", 1.0),
        ("word", "", 0.0),
        ("word", None, 0.0),
        (None, None, 1.0),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence_of_words(reference: str | None, said: str | None, score: float) -> None:
    assert text.rouge_l(row(reference), Answer(said)) == pytest.approx(score)


WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_rouge_l_equals_the_textbook_recursion(expected: list[str], said: list[str]) -> None:
    table = [[0] * (len(said) + 1) for _ in range(len(expected) + 1)]
    for i, one in enumerate(expected):
        for j, other in enumerate(said):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    total = len(expected) + len(said)
    by_hand = 2 * table[-1][-1] / total if expected and said else float(expected == said)
    assert text.rouge_l(row(" ".join(expected)), Answer(" ".join(said))) == pytest.approx(by_hand)
