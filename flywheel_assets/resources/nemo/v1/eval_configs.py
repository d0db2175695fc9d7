"""What the Evaluator is told: the configuration and the target of a job.

The generic one is the reference workflow's, to the letter. Two things are kept out of the others on purpose:
`tool_choice: required`, which never tests when *not* to call, and judges' ratings read by `(\\d)`, which reads 10 as 1.
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.rows import Json

GENERIC_TASK = "chat-completion"
TOOL_TASK = "custom-tool-calling"
JUDGE_TASK = "llm-as-judge"

_TASK_TYPE = "chat-completion"
_MESSAGES = "{{ item.request.messages | tojson }}"
_TOOLS = "{{ item.request.tools | tojson }}"
_REFERENCE_TEXT = "{{ item.response.choices[0].message.content | trim }}"
_REFERENCE_CALLS = "{{ item.response.choices[0].message.tool_calls | tojson }}"

_JUDGE_SYSTEM = (
    "You compare the tool calls of two assistants that were given the same request. They agree when they call the same "
    "functions with arguments of the same meaning; order and spelling of the JSON do not matter. An assistant that calls "
    "nothing agrees only with one that calls nothing."
)
_JUDGE_USER = (
    # Without `tojson`, which fails where an answer has no such field.
    "Expected: {{ item.response.choices[0].message.tool_calls }}\n"
    "Given: {{ sample.response.choices[0].message.tool_calls }}\n"
    "Answer with one line, `RATING: 1` if they agree and `RATING: 0` if they do not."
)
# Anchored to the end of the number, so that no digit of a longer one is taken for it.
RATING = r"RATING:\s*([01])(?!\d)"


def generic_task(dataset: str) -> Json:
    """Text answers, by token overlap with the logged one."""
    return {
        "type": _TASK_TYPE,
        "dataset": dataset,
        "params": {"template": {"messages": _MESSAGES}},
        "metrics": {"f1": {"type": "f1", "params": {"ground_truth": _REFERENCE_TEXT}}},
    }


def tool_task(dataset: str, *, has_tools: bool, tool_choice: Any) -> Json:
    """Tool calls against the logged ones; `tool_choice` is the one that was logged."""
    return {
        "type": _TASK_TYPE,
        "dataset": dataset,
        "params": {"template": _tool_template(has_tools, tool_choice)},
        "metrics": {
            "tool-calling-accuracy": {"type": "tool-calling", "params": {"tool_calls_ground_truth": _REFERENCE_CALLS}}
        },
    }


def judged_task(dataset: str, *, has_tools: bool, tool_choice: Any, judge: Json) -> Json:
    """Tool calls rated by a judge: `judge` is its endpoint."""
    metric = {
        "type": "llm-judge",
        "params": {
            "model": judge,
            "template": {
                "messages": [{"role": "system", "content": _JUDGE_SYSTEM}, {"role": "user", "content": _JUDGE_USER}]
            },
            "scores": {"rating": {"type": "int", "parser": {"type": "regex", "pattern": RATING}}},
        },
    }
    return {**tool_task(dataset, has_tools=has_tools, tool_choice=tool_choice), "metrics": {"correctness": metric}}


def evaluation_config(tasks: Json) -> Json:
    """A configuration of these tasks."""
    return {"type": "custom", "tasks": tasks}


def model_endpoint(nim_url: str, model: str, api_key: str | None = None) -> Json:
    """A model behind the NIM proxy, as jobs and judges name it."""
    key = {"api_key": api_key} if api_key else {}
    return {"api_endpoint": {"url": f"{nim_url}/v1/chat/completions", "model_id": model, **key}}


def evaluation_target(nim_url: str, model: str) -> Json:
    """What is examined."""
    return {"type": "model", "model": model_endpoint(nim_url, model)}


def _tool_template(has_tools: bool, tool_choice: Any) -> Json:
    if not has_tools:
        # Servers refuse an empty list of tools, and a choice among none.
        return {"messages": _MESSAGES}
    return {"messages": _MESSAGES, "tools": _TOOLS, "tool_choice": tool_choice}
