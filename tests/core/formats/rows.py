"""A valid row of every format, in its published shape; the contents are invented here.

The shapes: OpenAI's guide to supervised fine-tuning; LLaMA-Factory's data README (ShareGPT with calls); the data set cards
of NousResearch/hermes-function-calling-v1 and Salesforce/xlam-function-calling-60k. `test_public_examples` reads what of
this packages really ship. Completions and traces of workflows have no public data set with calls.
"""

from __future__ import annotations

import json
from typing import Any

Row = dict[str, Any]

STOCK: Row = {
    "name": "stock_level",
    "description": "How many pieces of an article are in a store.",
    "parameters": {
        "type": "object",
        "properties": {"article": {"type": "string", "description": "Article number."}, "store": {"type": "integer"}},
        "required": ["article"],
    },
}
TOOL: Row = {"type": "function", "function": STOCK}
CALL: Row = {"name": "stock_level", "arguments": {"article": "A-7", "store": 3}}
ASKED = "Is article A-7 in store 3?"

OPENAI: Row = {
    "messages": [
        {"role": "system", "content": "You answer for a shop."},
        {"role": "user", "content": ASKED},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "stock_level", "arguments": json.dumps(CALL["arguments"])},
                }
            ],
        },
    ],
    "parallel_tool_calls": False,
    "tools": [TOOL],
}
SHAREGPT: Row = {
    "conversations": [
        {"from": "human", "value": ASKED},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": '{"pieces": 4}'},
        {"from": "gpt", "value": "Yes, four pieces."},
    ],
    "system": "You answer for a shop.",
    "tools": json.dumps([STOCK]),
}
# The wording around the tags is the format's own and varies; only the tags count.
HERMES_SYSTEM = (
    "You answer for a shop. Functions are described within <tools></tools> XML tags; call them where they help. "
    f"<tools>\n{json.dumps([TOOL])}\n</tools>\nA call is a JSON object within <tool_call></tool_call> XML tags, like:\n"
    "<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)
HERMES: Row = {
    "id": "7f3c",
    "conversations": [
        {"from": "system", "value": HERMES_SYSTEM},
        {"from": "human", "value": ASKED},
        {"from": "gpt", "value": f"Let me look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>"},
        {
            "from": "tool",
            "value": '<tool_response>\n{"name": "stock_level", "content": {"pieces": 4}}\n</tool_response>',
        },
        {"from": "gpt", "value": "Yes, four pieces."},
    ],
    "category": "Retail",
}
XLAM: Row = {
    "id": 12,
    "query": ASKED,
    "tools": json.dumps(
        [
            {
                "name": "stock_level",
                "description": STOCK["description"],
                "parameters": {
                    "article": {"description": "Article number.", "type": "str"},
                    "store": {"description": "Store number.", "type": "int, optional", "default": 1},
                },
            }
        ]
    ),
    "answers": json.dumps([CALL]),
}
PROMPT_COMPLETION: Row = {"prompt": ASKED, "completion": json.dumps(CALL), "tools": [STOCK]}
STRUCTURED: Row = {
    "prompt": {"entity": "invoice", "context": {"country": "CH"}, "text": "Invoice 17 of 3 May, CHF 40.50"},
    "completion": {"number": 17, "total": 40.5, "currency": "CHF"},
}
TRACER: Row = {
    "timestamp": "2026-03-01T08:00:00Z",
    "run_id": "run-5",
    "agent": "stock-agent",
    "model": "big-model",
    "system_prompt": "You answer for a shop.",
    "query": ASKED,
    "answer": "",
    "tool_calls": [CALL],
    "tools": [STOCK],
    "success": True,
    "error": None,
    "time": 1.25,
    "cost": 0.004,
}

VALID: dict[str, list[Row]] = {
    "openai": [OPENAI],
    "sharegpt": [SHAREGPT],
    "hermes": [HERMES],
    "xlam": [XLAM],
    "prompt-completion": [PROMPT_COMPLETION, STRUCTURED],
    "workflow-tracer": [TRACER],
}


def calls(message: Row) -> list[Row]:
    """The calls of a message as `{name, arguments}`, arguments read."""
    found = []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        read = arguments if isinstance(arguments, dict) else json.loads(arguments)
        found.append({"name": call["function"]["name"], "arguments": read})
    return found


def answer_of(record: Row) -> Row:
    """The answer in a record."""
    message: Row = record["response"]["choices"][0]["message"]
    return message
