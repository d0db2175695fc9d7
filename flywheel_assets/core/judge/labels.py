"""Labels: answers of which a person said whether they are right, in a JSONL file; they show how far a judge can be trusted.

One JSON object a line: `request` (an OpenAI chat-completions request), `expected` and `answer` (OpenAI assistant messages),
`label` (1 right, 0 wrong); optional `workload` (a slug: the line is about this workload only) and anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flywheel_assets.core.rows import Answer, Json

_NEEDED = ("request", "expected", "answer", "label")


class LabelsError(ValueError):
    """A line of a labels file cannot be used; the message names file and line."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answer to a request, the answer that was expected, and whether a person called it right."""

    request: Json
    expected: Answer
    answer: Answer
    right: bool


def parse_labels(lines: Iterable[str], *, origin: str, workload: str) -> list[LabelledAnswer]:
    """The labelled answers of a workload, in the order of the file; blank lines are passed over. Raises LabelsError."""
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{origin}, line {number}"
        content = _object(line, where)
        if content.get("workload", workload) == workload:
            found.append(_labelled(content, where))
    return found


def _object(line: str, where: str) -> Json:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{where}: not JSON ({error}). One JSON object a line; docs/judge.md shows one.") from None
    lacking = [key for key in _NEEDED if not isinstance(content, dict) or key not in content]
    if lacking:
        raise LabelsError(f"{where}: it lacks {', '.join(lacking)}. docs/judge.md shows what a line holds.")
    return dict(content)


def _labelled(content: Json, where: str) -> LabelledAnswer:
    label = content["label"]
    if type(label) is not int or label not in (0, 1):
        raise LabelsError(f"{where}: `label` is {label!r}; it must be 1 (right) or 0 (wrong).")
    request = content["request"]
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise LabelsError(f"{where}: `request` must be an OpenAI chat request with `messages`.")
    expected, answer = (_answer(content[key], key, where) for key in ("expected", "answer"))
    return LabelledAnswer(request, expected, answer, bool(label))


def _answer(message: Any, key: str, where: str) -> Answer:
    try:
        answer = Answer.from_message(message)
        texts = [answer.content or "", *(text for call in answer.tool_calls for text in (call.name, call.arguments))]
        usable = all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise LabelsError(
            f"{where}: `{key}` must be an OpenAI assistant message: `content`, a text, and `tool_calls` whose `function` "
            "has a `name` and `arguments` as text."
        )
    return answer
