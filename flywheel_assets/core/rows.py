"""Rows: the plain data that travels between datasets, evaluation, metrics and decisions.

What belongs here: the few frozen types every stage agrees on. What does not: how they are read from disk
(`core.datasets`), produced by a model (`resources.evaluator`) or scored (`core.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

# Labels of the suite `draw`: rows of the sample that means and gates are about, and rows that were added to rare classes.
SAMPLE, RARE_CLASS_FLOOR = "sample", "rare_class_floor"


class WorkloadType(StrEnum):
    """What kind of LLM call a workload is; it selects the metrics. `core.datasets.profile` says how it is told."""

    TOOL_CALLING = "tool_calling"
    STRUCTURED = "structured"
    GENERIC = "generic"


class Variant(StrEnum):
    """How a candidate is run: as it is, with a context-engineering prefix, or with its adapter."""

    BASE = "base"
    PREFIXED = "prefixed"
    CUSTOMIZED = "customized"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. `arguments` is the JSON text exactly as the model wrote it, malformed or not."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said: text, tool calls, or both. `tool_calls` is empty when no tool was called.

    `cut_off` says why the answer ended before it was finished: `length` (the token limit) or `content_filter`; None where it
    was finished, or where nobody said.
    """

    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    cut_off: str | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether this answer calls at least one tool."""
        return bool(self.tool_calls)

    def to_json(self) -> Json:
        """A JSON-ready form: `{"content": ..., "tool_calls": [{"name": ..., "arguments": ...}]}`, and any `cut_off`."""
        return {
            "content": self.content,
            "tool_calls": [{"name": c.name, "arguments": c.arguments} for c in self.tool_calls],
            # Left out of finished answers: they hash as they did before this was recorded.
            **({} if self.cut_off is None else {"cut_off": self.cut_off}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Answer:
        """The inverse of `to_json`."""
        return cls(
            content=value.get("content"),
            tool_calls=tuple(ToolCall(c["name"], c["arguments"]) for c in value.get("tool_calls") or ()),
            cut_off=value.get("cut_off"),
        )

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Answer:
        """The answer in an OpenAI assistant message (`tool_calls[].function.{name, arguments}`)."""
        calls = message.get("tool_calls") or ()
        return cls(
            content=message.get("content"),
            tool_calls=tuple(ToolCall(c["function"]["name"], c["function"]["arguments"]) for c in calls),
        )


@dataclass(frozen=True, slots=True)
class EvalRow:
    """One row of `eval_data.jsonl`: an OpenAI request and the answer it is examined against.

    `accepted` holds, where the record brought them (`accepted_answers`), several right answers in the form of the
    Berkeley leaderboard: a list of `{function_name: {parameter: [accepted values]}}`; None means the reference alone counts.
    `gold` says on whose word the reference is right (`core.datasets.gold`); `logged` is what the teacher answered, where a
    person corrected it, and None where the reference is the teacher's own answer. `draw_probability`, above 0 and 1 at most,
    is the chance with which this row of the eval side came into the exam; None in files from before it was recorded.
    `suite_draw` is None where every row is of the sample.
    """

    row_id: str
    trace_id: str
    cluster: str
    request: Json
    reference: Answer
    suite_turns: str
    suite_turn_kind: str | None = None
    suite_complexity: str | None = None
    suite_domain: str | None = None
    accepted: tuple[Json, ...] | None = None
    gold: str = "teacher"
    logged: Answer | None = None
    draw_probability: float | None = None
    suite_draw: str | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether it counts in means and gates: rows added to a rare class are looked at by themselves."""
        return self.suite_draw != RARE_CLASS_FLOOR


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one variant of a candidate answered to one eval row.

    `answer` is None exactly when `error` is set. Latency is milliseconds as the client saw it, of the call that
    produced the answer (also when it was reused from the cache). `cached_tokens` are the part of `prompt_tokens` that the
    server took from its own prompt cache; `cached` says that the whole answer came from ours.
    """

    row_id: str
    answer: Answer | None
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    cached: bool = False
    cached_tokens: int | None = None
