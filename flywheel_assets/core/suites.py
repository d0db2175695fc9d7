"""Suites: the labels of an eval row, by which every report and gate can be read.

What belongs here: how a row is labelled, from its request and reference alone. What does not: scores by label
(`core.predictions`) and gates on them (`core.gates`). docs/suites.md defines every label for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flywheel_assets.core.patterns import pattern
from flywheel_assets.core.rows import Json

SINGLE, MULTI = "single_turn", "multi_turn"
CLARIFICATION, SEQUENTIAL, CONTEXT = "clarification", "sequential", "context_dependent"
SIMPLE, MODERATE, COMPLEX = "simple", "moderate", "complex"

# Offered functions beyond which choosing among them is part of the task, and a task of its own.
SEVERAL_TOOLS, MANY_TOOLS = 3, 9
MANY_OPTIONAL = 3
# Fields of an asked-for JSON schema beyond which it is more than a small form.
MANY_FIELDS = 8
_NAMESPACE = re.compile(r"^(.+?)(?:\.|/|::|__)")


@dataclass(frozen=True, slots=True)
class DomainRule:
    """Rows of one domain: those that meet every condition given (empty ones are not asked).

    `tools` are patterns (`billing_*`) of which one fits an expected call, or, where none is expected, every offered tool;
    `metadata` are keys and values of the request's `metadata`; `text` is a regular expression found in what the user said.
    """

    domain: str
    tools: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    text: str = ""


def labels_of(request: Json, answer: Json, rules: Sequence[DomainRule] = ()) -> Json:
    """`{"suite_turns", "suite_turn_kind", "suite_complexity", "suite_domain"}`; None where a label does not apply.

    `answer` is the reference as an assistant message; the first rule that fits names the domain, and without rules the
    request's `metadata.domain` does, or the namespace that the tools share.
    """
    kind = turn_kind(request["messages"])
    return {
        "suite_turns": MULTI if kind else SINGLE,
        "suite_turn_kind": kind,
        "suite_complexity": complexity(request, answer),
        "suite_domain": domain(request, answer, rules),
    }


def turn_kind(messages: Sequence[Json]) -> str | None:
    """What makes a conversation one of several turns; None where the user speaks once.

    clarification: the user's last message answers a question of the assistant. sequential: a tool was used before it, so
    that one step follows from another. context_dependent: anything else that was said before.
    """
    spoken = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if len(spoken) < 2:
        return None
    before = messages[: spoken[-1]]
    last = before[-1]
    if last["role"] == "assistant" and not last.get("tool_calls") and _text(last).rstrip().endswith(("?", "？", "؟")):
        return CLARIFICATION
    if any(message["role"] == "tool" or message.get("tool_calls") for message in before):
        return SEQUENTIAL
    return CONTEXT


def complexity(request: Json, answer: Json) -> str | None:
    """How much there is to get right, by points; None where neither tools are offered nor a schema is asked for.

    Tools: a point for 3 or more offered and another for 9 or more, one each for a tool with 3 or more optional parameters,
    a nested parameter, and an answer of several calls. A schema: one each for 8 or more fields, a nested field, and 3 or
    more optional ones. simple: no point, moderate: one, complex: more.
    """
    if tools := request.get("tools"):
        schemas = [tool["function"].get("parameters") for tool in tools]
        points = (len(tools) >= SEVERAL_TOOLS) + (len(tools) >= MANY_TOOLS) + (len(answer.get("tool_calls") or ()) > 1)
    elif (schema := _asked_schema(request)) is not None:
        schemas = [schema]
        points = int(len(_properties(schema)) >= MANY_FIELDS)
    else:
        return None
    points += any(_optional(schema) >= MANY_OPTIONAL for schema in schemas)
    points += any(_is_nested(schema) for schema in schemas)
    return (SIMPLE, MODERATE, COMPLEX)[min(points, 2)]


def domain(request: Json, answer: Json, rules: Sequence[DomainRule] = ()) -> str | None:
    """What the row is about, by the first rule that fits; without rules by its metadata or its tools' namespace."""
    if rules:
        return next((rule.domain for rule in rules if _fits(rule, request, answer)), None)
    named = _metadata(request).get("domain")
    if type(named) is str and named.strip():
        return named.strip()
    namespaces = {match[1] if (match := _NAMESPACE.match(name)) else None for name in _tools_meant(request, answer)}
    return namespaces.pop() if len(namespaces) == 1 else None


def _fits(rule: DomainRule, request: Json, answer: Json) -> bool:
    if rule.tools and not _fits_tools(rule.tools, request, answer):
        return False
    metadata = _metadata(request)
    if any(str(metadata.get(key)) != value for key, value in rule.metadata):
        return False
    said = "\n".join(_text(message) for message in request["messages"] if message["role"] == "user")
    return not rule.text or pattern(rule.text).search(said) is not None


def _fits_tools(patterns: Sequence[str], request: Json, answer: Json) -> bool:
    fitting = [any(fnmatchcase(name, pattern) for pattern in patterns) for name in _tools_meant(request, answer)]
    # A call is about its tool. Where none is expected, the offered ones tell only if they all agree.
    return bool(fitting) and (any(fitting) if answer.get("tool_calls") else all(fitting))


def _tools_meant(request: Json, answer: Json) -> list[str]:
    if calls := answer.get("tool_calls"):
        return [call["function"]["name"] for call in calls]
    return [tool["function"]["name"] for tool in request.get("tools") or ()]


def _metadata(request: Json) -> Mapping[str, Any]:
    found = request.get("metadata")
    return found if type(found) is dict else {}


def _asked_schema(request: Json) -> Json | None:
    asked = request.get("response_format")
    wrapped = asked.get("json_schema") if type(asked) is dict else None
    schema = wrapped.get("schema") if type(wrapped) is dict else None
    return schema if type(schema) is dict else None


def _properties(schema: Any) -> dict[str, Any]:
    found = schema.get("properties") if type(schema) is dict else None
    return found if type(found) is dict else {}


def _optional(schema: Any) -> int:
    properties = _properties(schema)
    required = schema.get("required") if properties else None
    return len(
        properties.keys() - {name for name in required if type(name) is str} if type(required) is list else properties
    )


def _is_nested(schema: Any) -> bool:
    """Whether a property is an object of its own, or a list of objects."""
    return any(
        bool(_properties(inner)) or (type(inner) is dict and bool(_properties(inner.get("items"))))
        for inner in _properties(schema).values()
    )


def _text(message: Json) -> str:
    content = message.get("content")
    if type(content) is str:
        return content
    texts = (part.get("text") for part in content or () if type(part) is dict)
    return "\n".join(text for text in texts if type(text) is str)
