"""Whether our `bfcl_ast` says what the leaderboard's own checker says, on every accepted answer and on 1,000 spoiled ones.

What belongs here: the comparison, and the known kinds of difference, each proved on the answer in question (docs/metrics.md
lists them for people). What does not: the answers (`bfcl_answers`) and the checker (`oracles`).

The questions keep their own form for the checker; our side sees them as traffic does: OpenAI tools with JSON Schema types,
and function names without dots.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.bfcl_answers import (
    OTHER_LANGUAGES,
    Case,
    Question,
    accepted_answers,
    as_text,
    called,
    first_answer,
    mutated_answers,
    read_questions,
)  # fmt: skip
from benchmarks.figure import figure
from benchmarks.oracles.environments import BFCL_VERSION, run_bfcl
from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType
from flywheel_assets.demo.bfcl import json_schema


@dataclass(frozen=True)
class Compared:
    """A case with both verdicts."""

    case: Case
    ours: bool
    theirs: bool
    error_type: str | None


def bench_bfcl_parity() -> dict[str, object]:
    """Unexplained differences between `bfcl_ast` and the leaderboard's checker; the explained ones are counted by kind."""
    questions = list(read_questions())
    accepted = [case for question in questions for case in accepted_answers(question)]
    mutated = list(mutated_answers(questions))
    compared = compare([*accepted, *mutated])
    differences = [row for row in compared if row.ours != row.theirs]
    kinds = explain(differences)
    unexplained = [row for row, kind in zip(differences, kinds, strict=True) if kind is None]
    line = figure("bfcl_parity_differences", len(unexplained), "answers", "lower", 0, peer=f"bfcl-eval {BFCL_VERSION}")
    return {
        **line,
        "questions": len(questions),
        "accepted_answers": len(accepted),
        "mutated_answers": dict(Counter(case.kind for case in mutated)),
        "valid": sum(row.theirs for row in compared),
        "explained": dict(Counter(kind for kind in kinds if kind is not None)),
        "examples": [shown(row) for row in unexplained[:5]],
    }


def compare(cases: list[Case]) -> list[Compared]:
    """Both verdicts on each case, ours through `score_rows`."""
    theirs = run_bfcl([
        {
            "category": case.question.category,
            "functions": case.question.functions,
            "accepted": case.question.accepted,
            "calls": case.calls,
        }
        for case in cases
    ])  # fmt: skip
    rows, predictions = [], []
    for number, case in enumerate(cases):
        row_id = str(number)
        rows.append(eval_row(row_id, case.question))
        answer = Answer(None, tuple(ToolCall(name, text) for name, text in case.calls))
        predictions.append(Prediction(row_id, answer, latency_ms=1.0))
    ours = score_rows(WorkloadType.TOOL_CALLING, rows, predictions, only=["bfcl_ast"])["bfcl_ast"]
    return [
        Compared(case, bool(score), said["valid"], said["error_type"])
        for case, score, said in zip(cases, ours, theirs, strict=True)
    ]


def eval_row(row_id: str, question: Question) -> EvalRow:
    """The question as traffic: OpenAI tools, the answer of first values as the logged one."""
    tools = [
        {
            "type": "function",
            "function": {"name": called(function["name"]), "parameters": json_schema(function["parameters"])},
        }
        for function in question.functions
    ]
    reference = Answer(None, tuple(ToolCall(name, text) for name, text in as_text(first_answer(question))))
    return EvalRow(row_id, row_id, row_id, {"tools": tools}, reference, "single", accepted=tuple(question.accepted))


# Explanations. Each gives answers (and accepted answers) close to the one in question, without what is said to make the
# difference; it explains the difference if both sides find one of them right.

Explanation = Callable[[Case], Iterator[Case]]


def _in_another_order(case: Case) -> Iterator[Case]:
    """The leaderboard gives the first accepted call the first answer that fits, even if another call needs that one."""
    for calls in itertools.islice(itertools.permutations(case.calls), 1, 200):
        yield replace(case, calls=calls)


def _floats_in_lists(case: Case) -> Iterator[Case]:
    """The leaderboard lets an integer pass for a float, but not inside a list."""

    def as_float(value: Any) -> Any:
        return float(value) if type(value) is int else value

    yield _rewritten(case, lambda value: [as_float(item) for item in value] if isinstance(value, list) else value)


def _truth_values_in_objects(case: Case) -> Iterator[Case]:
    """Inside an object the leaderboard compares as Python does, where true is 1."""
    accepted: dict[str, list[Any]] = {}
    for expected in case.question.accepted:
        (parameters,) = expected.values()
        for choice in itertools.chain.from_iterable(parameters.values()):
            for item in choice if isinstance(choice, list) else [choice]:
                for key, alternatives in item.items() if isinstance(item, dict) else ():
                    accepted.setdefault(key, []).extend(alternatives if isinstance(alternatives, list) else [alternatives])

    def as_accepted(value: Any) -> Any:
        if isinstance(value, list):
            return [as_accepted(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: next((one for one in accepted.get(key, ()) if one == item), item) for key, item in value.items()}

    yield _rewritten(case, as_accepted)


def _plain_text(case: Case) -> Iterator[Case]:
    """Case and punctuation of text more than one level inside a list or object count for the leaderboard."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"[ ,./_*^-]", "", value).lower()
        if isinstance(value, list):
            return [plain(item) for item in value]
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value

    accepted = [
        {name: {key: plain(choices) for key, choices in parameters.items()} for name, parameters in expected.items()}
        for expected in case.question.accepted
    ]
    yield replace(_rewritten(case, plain), question=replace(case.question, accepted=accepted))


EXPLANATIONS: Mapping[str, Explanation] = {
    "calls paired greedily": _in_another_order,
    "integers in a list of floats": _floats_in_lists,
    "true and 1 inside an object": _truth_values_in_objects,
    "text deep inside a value": _plain_text,
}
_OTHER_NOTATION = "values as Java or JavaScript source"


def explain(differences: list[Compared]) -> list[str | None]:
    """The kind of each difference; None where no explanation holds."""
    kinds: list[str | None] = []
    tried: list[tuple[int, str]] = []
    cases: list[Case] = []
    for number, row in enumerate(differences):
        notation = row.case.question.category in OTHER_LANGUAGES and row.error_type in ("type_error:java", "type_error:js")
        kinds.append(_OTHER_NOTATION if notation else None)
        if not notation:
            for kind, neighbours in EXPLANATIONS.items():
                found = [case for case in neighbours(row.case) if case != row.case]
                tried += [(number, kind)] * len(found)
                cases += found
    for (number, kind), row in zip(tried, compare(cases), strict=True):
        if row.ours and row.theirs and kinds[number] is None:
            kinds[number] = kind
    return kinds


def _rewritten(case: Case, change: Callable[[Any], Any]) -> Case:
    calls = []
    for name, text in case.calls:
        try:
            calls.append((name, {key: change(value) for key, value in json.loads(text).items()}))
        except (ValueError, AttributeError):
            return case  # malformed, which nothing here explains
    return replace(case, calls=as_text(calls))


def shown(row: Compared) -> dict[str, Any]:
    """A difference for the person who must explain it."""
    return {
        "question": row.case.question.id,
        "kind": row.case.kind,
        "ours": row.ours,
        "theirs": row.theirs,
        "error_type": row.error_type,
        "calls": row.case.calls,
        "accepted": row.case.question.accepted,
    }


if __name__ == "__main__":
    print(json.dumps(bench_bfcl_parity(), ensure_ascii=False))
