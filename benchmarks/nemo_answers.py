"""Rows for NeMo's metrics: real ones from the leaderboard's questions, and adversarial ones.

What belongs here: pairs of a reference and an answer, each with text and calls, the same for the same seed. What does not:
scoring them (`nemo_parity`). References are always readable: NeMo takes them as parsed objects.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.bfcl_answers import OTHER_LANGUAGES, Question, as_text, first_answer, mutated_answers, read_questions

ROWS = 1_000
# The leaderboard's other half: requests that no function fits.
_NO_CALL_SHARE = 0.12

Calls = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pair:
    """A reference and an answer: text, and calls as (name, arguments as text); `kind` says how they came about."""

    kind: str
    text: str
    said: str
    calls: Calls
    made: Calls


def real_pairs(count: int = ROWS, seed: int = 0) -> list[Pair]:
    """Leaderboard questions: their accepted calls against right and spoiled ones, and their texts against other wordings."""
    rng = random.Random(seed)
    questions = [question for question in read_questions() if question.category not in OTHER_LANGUAGES]
    spoiled = list(mutated_answers(questions, count, seed=seed))
    pairs = []
    for case in spoiled:
        expected, made = as_text(first_answer(case.question)), case.calls
        if rng.random() < 0.4:
            made = tuple(
                (name, json.dumps(json.loads(arguments), indent=1))
                for name, arguments in rng.sample(expected, len(expected))
            )
        if rng.random() < _NO_CALL_SHARE:
            expected = ()
            made = made if rng.random() < 0.3 else ()
        text = case.question.text
        pairs.append(Pair(case.kind, text, _reworded(text, questions, rng), expected, made))
    return pairs


def _reworded(text: str, questions: list[Question], rng: random.Random) -> str:
    words = text.split()
    kind = rng.randrange(6)
    if kind == 0:
        return text
    if kind == 1:
        return rng.choice(questions).text
    if kind == 2:
        return " ".join(rng.sample(words, rng.randint(0, len(words))))
    if kind == 3:
        return "The answer is: " + text.upper()
    if kind == 4:
        return text + " " + " ".join(words[: len(words) // 2])
    return " ".join(word for word in words if rng.random() < 0.7)


_PIECES = (
    "a", "an", "the", "The", "AN", "a.", "'a'", "the-the", "a-n", "th.e", "a_the", "cat", "Cat's", "cats", "don't", "3.14",
    "1,000", "$5", "№", "—", "«", "…", "。", "İ", "ı", "ß", "SS", "e\u0301", "é", "ﬁ", "\u200b", "\u00a0", "\u2028", "\t",
    "\n", "\r\n", "\x00", "\ud800", "日本語", "🙂", "👨\u200d👩", "{{ item.said }}", "{% if x %}", "<b>",
    "\\", '"', "`a`", "!!!", "()", "of", "ªn", "A\u0301", "ɑ", "１２", "x" * 3000,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    0, 1, -1, 1.0, True, False, None, "", " ", "1", "1.0", "true", "null", [], {}, [[]], [{}], {"": {}}, 10**30, 1e308, -0.0,
    0.1 + 0.2, 0.3, "İstanbul", "e\u0301", "é", "\ud800", "🙂", "a" * 100_000, [1, "1", 1.0], {"a": [1, {"b": None}]},
    list(range(200)), float("nan"), float("inf"),
)  # fmt: skip
_NAMES = ("f", "F", "g", "f.g", "f_g", "", " f", "функция", "f\u200b", "🙂", "a" * 300)
_BROKEN = (
    "", " ", "{", "}", "{'a': 1}", '{"a": 1,}', '{"a": 1} x', "a", "NaN", '{"a": NaN}', '{"a": Infinity}', "[1]", '"a"', "1",
    "null", "true", '{"a": 1, "a": 2}', '{"a": 2, "a": 1}', '\ufeff{"a": 1}', '{"a": 01}', '{"a": .5}', '{"a": "\n"}',
    '{"a": "\\ud800"}', '{"a": 1e400}', '{"a": ' + "1" * 5_000 + "}", '{"a": ' * 100 + "1" + "}" * 100, "[" * 100_000,
    '{"a": 1}' * 2, "{a: 1}", "```json\n{}\n```",
)  # fmt: skip


def adversarial_pairs(count: int = ROWS, seed: int = 1) -> list[Pair]:
    """Whatever might break a comparison: kinds in turn."""
    rng = random.Random(seed)
    kinds = list(_ADVERSARIAL.items())
    pairs = []
    for number in range(count):
        kind, make = kinds[number % len(kinds)]
        expected, made = make(rng)
        text = _pieces(rng)
        said = rng.choice(
            [text, text.upper(), _pieces(rng), text + _pieces(rng), text[::-1], " ".join(rng.sample(text, len(text)))[:500]]
        )
        pairs.append(Pair(kind, text, said, _texts(expected), made if isinstance(made, tuple) else _texts(made)))
    return pairs


def _pieces(rng: random.Random) -> str:
    return rng.choice(["", " "]).join(rng.choice(_PIECES) for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 12])))


Wanted = list[tuple[str, Any]]


def _texts(calls: Wanted) -> Calls:
    return tuple((name, json.dumps(arguments)) for name, arguments in calls)


def _object(rng: random.Random) -> dict[str, Any]:
    return {rng.choice(["a", "b", "A", "", "é"]): rng.choice(_VALUES) for _ in range(rng.randint(0, 3))}


def _call(rng: random.Random) -> tuple[str, Any]:
    return rng.choice(_NAMES), _object(rng)


def _broken(rng: random.Random) -> tuple[Wanted, Calls]:
    name = rng.choice(_NAMES)
    return [(name, {"a": rng.choice([1, 2, "1"])})], ((name, rng.choice(_BROKEN)),)


def _broken_beside(rng: random.Random) -> tuple[Wanted, Calls]:
    """One call is right, another one broken: of the same name or another, before or after, expected or not."""
    right = _call(rng)
    other = rng.choice([right[0], "g", "h"])
    made = [*_texts([right]), (other, rng.choice(_BROKEN))]
    return rng.choice([[right], [right, (other, {"a": 1})]]), tuple(rng.sample(made, 2))


def _duplicates(rng: random.Random) -> tuple[Wanted, Wanted]:
    name, first, second = rng.choice(_NAMES), _object(rng), _object(rng)
    calls = [(name, first), (name, second)]
    return rng.choice([calls, calls[:1], calls[1:], calls * 2]), rng.choice(
        [calls, calls[::-1], calls[:1], calls[1:], calls * 2]
    )


def _values(rng: random.Random) -> tuple[Wanted, Wanted]:
    """Two values that are alike to some eye."""
    name, left = rng.choice(_NAMES), rng.choice(_VALUES)
    right = rng.choice([left, str(left), [left], {"a": left}, rng.choice(_VALUES), rng.choice([1, 1.0, True, "1"])])
    return [(name, {"a": left})], [(name, {"a": right})]


def _names(rng: random.Random) -> tuple[Wanted, Wanted]:
    arguments = _object(rng)
    return [(rng.choice(_NAMES), arguments)], [(rng.choice(_NAMES), arguments)]


def _not_objects(rng: random.Random) -> tuple[Wanted, Wanted]:
    left = rng.choice(_VALUES)
    return [("f", left)], [("f", rng.choice([left, rng.choice(_VALUES)]))]


def _silence(rng: random.Random) -> tuple[Wanted, Wanted]:
    return rng.choice([([], []), ([_call(rng)], []), ([], [_call(rng)])])


def _keys(rng: random.Random) -> tuple[Wanted, Wanted]:
    """The same keys in another order, one missing, one too many."""
    arguments = {key: rng.choice(_VALUES) for key in "abc"}
    items = rng.sample(list(arguments.items()), 3)
    return [("f", arguments)], [("f", dict(rng.choice([items, items[:2], [*items, ("d", None)]])))]


def _many(rng: random.Random) -> tuple[Wanted, Wanted]:
    calls = [(f"f{number % 7}", _object(rng)) for number in range(60)]
    return calls, rng.choice([calls, calls[::-1], calls[:-1], calls[7:]])


def _nested(rng: random.Random) -> tuple[Wanted, Wanted]:
    value: Any = 1
    for _ in range(rng.choice([10, 100, 300])):
        value = rng.choice([[value], {"a": value}])
    return [("f", {"a": value})], [("f", {"a": rng.choice([value, [value]])})]


_ADVERSARIAL: dict[str, Callable[[random.Random], tuple[Wanted, Wanted | Calls]]] = {
    "malformed arguments": _broken,
    "a malformed call beside a right one": _broken_beside,
    "duplicate calls": _duplicates,
    "values that look alike": _values,
    "names that look alike": _names,
    "arguments that are no object": _not_objects,
    "nothing called": _silence,
    "keys": _keys,
    "many calls": _many,
    "deep nesting": _nested,
}
