"""Text: how a written answer is compared with a written reference. No content counts as an empty text."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import lru_cache

from rapidfuzz.distance import LCSseq

from flywheel_assets.core.rows import Answer, EvalRow

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = re.compile(r"[^\W_]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(8192)
def normalized_tokens(text: str) -> tuple[str, ...]:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no ASCII punctuation, no articles, split on blanks."""
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(row: EvalRow, answer: Answer) -> float | None:
    """Token-overlap F1 as NeMo Evaluator's `f1`: harmonic mean of precision and recall over normalised tokens (a multiset).

    1 if both texts are empty after normalisation, 0 if one of them is.
    """
    expected = normalized_tokens(row.reference.content or "")
    said = normalized_tokens(answer.content or "")
    if not expected or not said:
        return float(expected == said)
    shared = (Counter(expected) & Counter(said)).total()
    return 2.0 * shared / (len(expected) + len(said))


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
