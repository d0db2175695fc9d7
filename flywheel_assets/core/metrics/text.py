"""Text: how a written answer is compared with a written reference. No content counts as an empty text.

In a tool-calling workload the same is asked of the turns that are answered in words alone.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

from rapidfuzz.distance import LCSseq

from flywheel_assets.core.rows import Answer, EvalRow

_PUNCTUATION = string.punctuation.encode()
_BLANKS_AND_PUNCTUATION = _PUNCTUATION + b" \t\n\r"
_WORDS = re.compile(r"[^\W_]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ARTICLE_WORDS = frozenset({"a", "an", "the"})


@lru_cache(8192)
def normalized_tokens(text: str) -> tuple[str, ...]:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no ASCII punctuation, no articles, split on blanks."""
    # As bytes, because that is four times as fast; in UTF-8 no part of another character looks like ASCII punctuation.
    encoded = text.lower().encode("utf-8", "surrogatepass")
    plain = encoded.translate(None, _PUNCTUATION).decode("utf-8", "surrogatepass")
    if encoded.translate(None, _BLANKS_AND_PUNCTUATION).isalnum():
        # Nothing but ASCII words and blanks, as nearly always: an article is a word of its own.
        return tuple([word for word in plain.split() if word not in _ARTICLE_WORDS])
    return tuple(_ARTICLES.sub(" ", plain).split())


def f1(row: EvalRow, answer: Answer) -> float | None:
    """Token-overlap F1 as NeMo Evaluator's `f1`: harmonic mean of precision and recall over normalised tokens (a multiset).

    1 if both texts are empty after normalisation, 0 if one of them is.
    """
    expected = normalized_tokens(row.reference.content or "")
    said = normalized_tokens(answer.content or "")
    if expected == said or not expected or not said:
        return float(expected == said)
    return 2.0 * _shared(expected, said) / (len(expected) + len(said))


def _shared(expected: tuple[str, ...], said: tuple[str, ...]) -> int:
    """How many tokens both have, each as often as both have it."""
    # A plain dictionary: for a sentence, making a Counter costs more than counting.
    left: dict[str, int] = {}
    for token in expected:
        left[token] = left.get(token, 0) + 1
    shared = 0
    for token in said:
        if often := left.get(token):
            left[token] = often - 1
            shared += 1
    return shared


def exact_match(row: EvalRow, answer: Answer) -> float | None:
    """1 if the texts are the same, character for character; only blanks around them are ignored."""
    return float((row.reference.content or "").strip() == (answer.content or "").strip())


@lru_cache(8192)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(text.lower()))


def rouge_l(row: EvalRow, answer: Answer) -> float | None:
    """ROUGE-L F1 (Lin 2004): twice the longest common subsequence of words, over the words of both texts.

    Words are runs of letters and digits in lower case, not stemmed; on ASCII text that is `rougeL` of PyPI `rouge-score`,
    which drops other letters. The subsequence comes from the library `rapidfuzz`. 1 if neither text has words, 0 if one of
    them has none.
    """
    expected = _words(row.reference.content or "")
    said = _words(answer.content or "")
    if not expected or not said:
        return float(expected == said)
    return 2.0 * LCSseq.similarity(expected, said) / (len(expected) + len(said))


def turn_f1(row: EvalRow, answer: Answer) -> float | None:
    """`f1` of text workloads, on the turns that the teacher answered in words alone.

    None where it called a tool, or said nothing.
    """
    return f1(row, answer) if _is_a_text_turn(row) else None


def turn_exact_match(row: EvalRow, answer: Answer) -> float | None:
    """`exact_match` of text workloads, on the turns that the teacher answered in words alone; null as `f1`."""
    return exact_match(row, answer) if _is_a_text_turn(row) else None


def _is_a_text_turn(row: EvalRow) -> bool:
    return not row.reference.calls_tools and bool((row.reference.content or "").strip())
