"""Answers to the leaderboard's questions: every accepted one, and spoiled ones.

What belongs here: the questions in their own form, what is accepted, and the seeded mutations. What does not: judging them
(`bfcl_parity`).
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.oracles.environments import bfcl_wheel

CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
    "simple_java", "simple_javascript",
)  # fmt: skip
OTHER_LANGUAGES = ("simple_java", "simple_javascript")
MUTATED = 1_000
SEED = 20260323
_LEFT_OUT = ""

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """A question in the leaderboard's own form."""

    id: str
    category: str
    text: str
    functions: list[dict[str, Any]]
    accepted: list[dict[str, dict[str, list[Any]]]]


@dataclass(frozen=True)
class Case:
    """One answer to a question; `calls` are (name as called, arguments as text), `kind` says how it came about."""

    question: Question
    kind: str
    calls: tuple[tuple[str, str], ...]


def read_questions() -> Iterator[Question]:
    """Every single-turn question that has accepted answers."""
    with zipfile.ZipFile(bfcl_wheel()) as wheel:

        def lines(member: str) -> Iterator[dict[str, Any]]:
            for line in wheel.read(f"bfcl_eval/data/{member}").decode().split("\n"):
                if line.strip():
                    yield json.loads(line)

        for category in CATEGORIES:
            answers = {row["id"]: row["ground_truth"] for row in lines(f"possible_answer/BFCL_v4_{category}.json")}
            for row in lines(f"BFCL_v4_{category}.json"):
                text = "\n".join(message["content"] for message in row["question"][0])
                yield Question(row["id"], category, text, row["function"], answers[row["id"]])


def accepted_answers(question: Question) -> Iterator[Case]:
    """The answer of first accepted values, and one for every other accepted value (or absence) of every parameter."""
    first = first_answer(question)
    yield Case(question, "accepted", as_text(first))
    for position, expected in enumerate(question.accepted):
        ((function, parameters),) = expected.items()
        for name, choices in parameters.items():
            for choice in choices:
                arguments = {key: value for key, value in first[position][1].items() if key != name}
                if choice != _LEFT_OUT:
                    arguments[name] = concrete(choice)
                if arguments != first[position][1]:
                    calls = [*first[:position], (called(function), arguments), *first[position + 1 :]]
                    yield Case(question, "accepted", as_text(calls))


def first_answer(question: Question) -> list[Call]:
    """Of every parameter the first accepted value; left out where absence comes first."""
    calls = []
    for expected in question.accepted:
        ((function, parameters),) = expected.items()
        values = {name: choices[0] for name, choices in parameters.items() if choices and choices[0] != _LEFT_OUT}
        calls.append((called(function), {name: concrete(value) for name, value in values.items()}))
    return calls


def concrete(value: Any) -> Any:
    """An accepted value as an argument. In an object, or one in a list, each value is a list of accepted ones; no deeper."""
    if isinstance(value, dict):
        return {key: inner[0] for key, inner in value.items() if inner and inner[0] != _LEFT_OUT}
    if isinstance(value, list):
        return [concrete(item) if isinstance(item, dict) else item for item in value]
    return value


def called(function: str) -> str:
    """A function's name as an OpenAI model writes it."""
    return function.replace(".", "_")


def as_text(calls: list[Call]) -> tuple[tuple[str, str], ...]:
    """Calls as a model makes them: the arguments as JSON text."""
    return tuple((name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls)


# Mutations. Each takes the right answer and gives the calls of a spoiled one, or None where it cannot be applied.

Mutation = Callable[[list[Call], Question, random.Random], list[Call] | tuple[tuple[str, str], ...] | None]


def _some_argument(calls: list[Call], rng: random.Random, of: type | tuple[type, ...] = object) -> tuple[int, str] | None:
    found = [(at, key) for at, (_, arguments) in enumerate(calls) for key, v in arguments.items() if isinstance(v, of)]
    return rng.choice(found) if found else None


def _changed(calls: list[Call], at: int, arguments: dict[str, Any]) -> list[Call]:
    return [*calls[:at], (calls[at][0], arguments), *calls[at + 1 :]]


def _with_value(calls: list[Call], where: tuple[int, str] | None, change: Callable[[Any], Any]) -> list[Call] | None:
    if where is None:
        return None
    at, key = where
    arguments = calls[at][1]
    return _changed(calls, at, {**arguments, key: change(arguments[key])})


def _other(value: Any) -> Any:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + " or so"
    if isinstance(value, list):
        return [*value, value[0]] if value else ["x"]
    return {**value, "surplus": 1} if isinstance(value, dict) else None


def _another_type(value: Any, rng: random.Random) -> Any:
    others = [str(value), [value], {"value": value}, None, True, 1, 1.0, float(value) if type(value) is int else "1", []]
    return rng.choice([other for other in others if type(other) is not type(value)])


def _wrong_value(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    return _with_value(calls, _some_argument(calls, rng), _other)


def _wrong_type(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    return _with_value(calls, _some_argument(calls, rng), lambda value: _another_type(value, rng))


def _missing_parameter(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    where = _some_argument(calls, rng)
    if where is None:
        return None
    at, key = where
    return _changed(calls, at, {name: value for name, value in calls[at][1].items() if name != key})


def _extra_parameter(calls: list[Call], question: Question, rng: random.Random) -> list[Call]:
    at = rng.randrange(len(calls))
    known = [name for function in question.functions for name in function["parameters"]["properties"]]
    unused = [name for name in known if name not in calls[at][1]]
    name = rng.choice([*unused, "surplus"])
    return _changed(calls, at, {**calls[at][1], name: rng.choice(["x", 1, True, [], "", None])})


def _renamed(calls: list[Call], question: Question, rng: random.Random) -> list[Call]:
    at = rng.randrange(len(calls))
    name, arguments = calls[at]
    others = [called(function["name"]) for function in question.functions if called(function["name"]) != name]
    new = rng.choice([*others, name.upper(), name + "_v2", name.replace("_", ".", 1)])
    return [*calls[:at], (new, arguments), *calls[at + 1 :]]


def _reordered(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    return rng.sample(calls, len(calls)) if len(calls) > 1 else None


def _dropped(calls: list[Call], _: Question, rng: random.Random) -> list[Call]:
    at = rng.randrange(len(calls))
    return [*calls[:at], *calls[at + 1 :]]


def _duplicated(calls: list[Call], _: Question, rng: random.Random) -> list[Call]:
    repeated = rng.choice(calls)
    if len(calls) > 1 and rng.random() < 0.5:  # in the place of another, so that the count is right
        at = rng.randrange(len(calls))
        return [*calls[:at], repeated, *calls[at + 1 :]]
    return [*calls, repeated]


def _respelled(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    spell = rng.choice([
        str.upper, str.title, lambda t: t.replace(" ", ""), lambda t: t.replace(" ", "_"), lambda t: f" {t}. ",
        lambda t: t.replace("'", '"'), lambda t: "-".join(t), lambda t: t + "!", lambda t: t.replace(",", ";"),
    ])  # fmt: skip

    def respell(value: Any) -> Any:
        if isinstance(value, str):
            return spell(value)
        if isinstance(value, list):
            return [respell(item) for item in value]
        return {key: respell(item) for key, item in value.items()} if isinstance(value, dict) else value

    return _with_value(calls, _some_argument(calls, rng, (str, list, dict)), respell)


def _other_number(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    """The same number as another type, at any depth."""

    def turn(value: Any) -> Any:
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, int):
            return rng.choice([float(value), str(value), bool(value) if value in (0, 1) else float(value)])
        if isinstance(value, float):
            return int(value) if value == int(value) else str(value)
        if isinstance(value, list):
            return [turn(item) for item in value]
        return {key: turn(item) for key, item in value.items()} if isinstance(value, dict) else value

    return _with_value(calls, _some_argument(calls, rng, (int, float, list, dict)), turn)


def _changed_inside(calls: list[Call], _: Question, rng: random.Random) -> list[Call] | None:
    """Something inside a list or an object: an item less, one more, another order, another value, nothing left."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            if not items:
                return {"surplus": 1}
            key, inner = rng.choice(items)
            rest = {name: item for name, item in items if name != key}
            return rng.choice([rest, {**value, "surplus": 1}, {**value, key: _other(inner)}, {}])
        if not value:
            return [1]
        swapped = list(reversed(value))
        return rng.choice([value[1:], [*value, value[-1]], swapped, [_other(value[0]), *value[1:]], []])

    return _with_value(calls, _some_argument(calls, rng, (list, dict)), change)


def _absence_written(calls: list[Call], question: Question, rng: random.Random) -> list[Call] | None:
    """An optional parameter given as something empty."""
    at = rng.randrange(len(calls))
    (parameters,) = question.accepted[at].values()
    optional = [name for name, choices in parameters.items() if _LEFT_OUT in [c for c in choices if isinstance(c, str)]]
    if not optional:
        return None
    return _changed(calls, at, {**calls[at][1], rng.choice(optional): rng.choice(["", " ", [], {}, None, 0, False, [""]])})


def _malformed(calls: list[Call], _: Question, rng: random.Random) -> tuple[tuple[str, str], ...]:
    texts = list(as_text(calls))
    at = rng.randrange(len(texts))
    name, text = texts[at]
    broken = rng.choice([text[:-1], "", "[]", "null", json.dumps(text), text + "}", "{'a': 1}", "[" + text + "]"])
    return (*texts[:at], (name, broken), *texts[at + 1 :])


MUTATIONS: Mapping[str, Mutation] = {
    "wrong value": _wrong_value,
    "wrong type": _wrong_type,
    "missing parameter": _missing_parameter,
    "extra parameter": _extra_parameter,
    "renamed function": _renamed,
    "reordered calls": _reordered,
    "dropped call": _dropped,
    "duplicated call": _duplicated,
    "respelled text": _respelled,
    "number of another type": _other_number,
    "changed inside a list or object": _changed_inside,
    "absence written out": _absence_written,
    "malformed arguments": _malformed,
}


def mutated_answers(questions: list[Question], count: int = MUTATED, seed: int = SEED) -> Iterator[Case]:
    """`count` spoiled answers to questions of the Python categories, the kinds in turn, the same for the same seed."""
    rng = random.Random(seed)
    drawn = [question for question in questions if question.category not in OTHER_LANGUAGES]
    kinds = list(MUTATIONS.items())
    made = 0
    while made < count:
        kind, mutate = kinds[made % len(kinds)]
        question = rng.choice(drawn)
        calls = mutate(first_answer(question), question, rng)
        if calls is None:
            continue
        yield Case(question, kind, calls if isinstance(calls, tuple) else as_text(calls))
        made += 1
