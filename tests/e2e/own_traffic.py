"""Traffic as a new user might bring it: a support desk whose calls go to one of a few tools, or to none."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

_TOOLS = {
    "open_ticket": ("Open a support ticket", {"subject": "string", "priority": "string"}),
    "order_status": ("Look up an order", {"order_id": "string"}),
    "refund_order": ("Refund an order", {"order_id": "string", "amount": "number"}),
}
_ITEMS = ("printer", "laptop", "headset", "monitor", "keyboard", "router", "phone", "charger", "desk", "chair")
_PRIORITIES = ("low", "normal", "high")


def write_ticket_records(path: Path, n: int, *, workload: str, seed: int = 7) -> Path:
    """`n` log records, each a conversation of its own."""
    rng = random.Random(seed)
    path.write_text("".join(json.dumps(_record(rng, i, workload)) + "\n" for i in range(n)), encoding="utf-8")
    return path


def write_text_records(path: Path, n: int, *, workload: str) -> Path:
    """`n` log records without tools: a question, and a short answer in text."""
    records = [
        {
            "timestamp": 1_790_000_000 + 60 * i,
            "workload_id": workload,
            "client_id": "desk",
            "request": {"model": "big-model", "messages": [{"role": "user", "content": f"Case {i}: what is broken?"}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": f"The {_ITEMS[i % len(_ITEMS)]}."}}]},
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_json_records(path: Path, n: int, *, workload: str) -> Path:
    """`n` log records that ask for a JSON object of a schema and get one."""
    properties = {"item": {"type": "string"}, "priority": {"enum": list(_PRIORITIES)}, "case": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    asked = {"type": "json_schema", "json_schema": {"name": "case", "schema": schema, "strict": True}}
    records = []
    for i in range(n):
        item, priority = _ITEMS[i % len(_ITEMS)], _PRIORITIES[i % len(_PRIORITIES)]
        answer = json.dumps({"item": item, "priority": priority, "case": i})
        messages = [{"role": "user", "content": f"Case {i}: the {item} is broken, {priority}."}]
        record = {
            "timestamp": 1_790_000_000 + 60 * i,
            "workload_id": workload,
            "client_id": "desk",
            "request": {"model": "big-model", "messages": messages, "response_format": asked},
            "response": {
                "choices": [{"message": {"role": "assistant", "content": answer}}],
                "usage": {"prompt_tokens": 400, "completion_tokens": 100},
            },
        }
        records.append(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def _record(rng: random.Random, i: int, workload: str) -> dict[str, Any]:
    item, number = rng.choice(_ITEMS), f"{rng.randrange(10_000, 99_999)}"
    kind = rng.choice(["open_ticket", "order_status", "refund_order", "none"])
    question, arguments = {
        "open_ticket": (
            f"Case {i}: my {item} is broken.",
            {"subject": f"broken {item}", "priority": rng.choice(_PRIORITIES)},
        ),
        "order_status": (f"Case {i}: where is order {number}?", {"order_id": number}),
        "refund_order": (f"Case {i}: refund 20 for order {number}.", {"order_id": number, "amount": 20}),
        "none": (f"Case {i}: thank you for the {item}!", None),
    }[kind]
    message: dict[str, Any] = {"role": "assistant", "content": "You are welcome."}
    if arguments is not None:
        call = {"id": "call_1", "type": "function", "function": {"name": kind, "arguments": json.dumps(arguments)}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "timestamp": 1_790_000_000 + 60 * i,
        "workload_id": workload,
        "client_id": "desk",
        "request": {
            "model": "big-model",
            "messages": [{"role": "user", "content": question}],
            "tools": [_tool(name) for name in _TOOLS],
            "max_tokens": 64,
        },
        "response": {"model": "big-model", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]},
    }


def _tool(name: str) -> dict[str, Any]:
    description, parameters = _TOOLS[name]
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in parameters.items()},
        "required": list(parameters),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}
