"""Synthetic traffic for the benchmarks: distinct tool-calling records of about 3 kB, shaped like Berkeley leaderboard rows.

What belongs here: records that cost what real ones cost to parse, hash and store. What does not: anything a score could
be computed from; the texts mean nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

TOOLS = 400
NO_CALL_SHARE = 0.15
_FIRST_TIMESTAMP = 1_750_000_000
_VERBS = ["calculate", "find", "convert", "book", "list", "compare", "translate", "schedule", "estimate", "lookup"]
_THINGS = ["distance", "route", "currency", "hotel", "triangle", "interest", "weather", "recipe", "flight", "population"]
_UNITS = ["metres", "degrees", "dollars", "kilograms", "seconds", "nights", "litres", "miles", "percent", "people"]
_TYPES = ("string", "integer", "number", "boolean")
_SYSTEM = (
    "You are an assistant that answers by calling the functions given. Call a function only if one fits the request and"
    " every required parameter is known; otherwise say in one sentence what is missing. Never invent a value."
)


def write_records(path: Path, n: int, seed: int = 0, workload: str = "bench") -> int:
    """Write `n` distinct log lines to `path`, the same ones for the same arguments; returns the bytes written."""
    with path.open("w", encoding="ascii", buffering=1 << 20) as file:
        return sum(file.write(line) for line in record_lines(n, seed, workload))


def record_lines(n: int, seed: int = 0, workload: str = "bench") -> Iterator[str]:
    """`n` log lines, each with its line feed. 2 to 4 tools each; about every seventh is answered without a call."""
    rng = random.Random(seed)
    tools = [_tool(number, random.Random(number)) for number in range(TOOLS)]
    written = [(name, json.dumps(tool)) for name, tool in tools]
    system, name_of_workload = json.dumps(_SYSTEM), json.dumps(workload)
    for number in range(n):
        chosen = rng.sample(range(TOOLS), rng.randint(2, 4))
        offered = ", ".join(written[i][1] for i in chosen)
        verb, thing, unit = rng.choice(_VERBS), rng.choice(_THINGS), rng.choice(_UNITS)
        question = f"Request {seed}-{number}: please {verb} the {thing} for {rng.randint(2, 10**6)} {unit}, starting at 4.5."
        message, finish = _answer(written[chosen[0]][0], number, rng)
        yield (
            f'{{"timestamp": {_FIRST_TIMESTAMP + number}, "workload_id": {name_of_workload}, "client_id": "bench",'
            f' "request": {{"model": "teacher-large", "temperature": 0, "messages": ['
            f'{{"role": "system", "content": {system}}}, {{"role": "user", "content": "{question}"}}],'
            f' "tools": [{offered}], "tool_choice": "auto"}},'
            f' "response": {{"id": "chatcmpl-{seed}-{number}", "object": "chat.completion", "model": "teacher-large",'
            f' "choices": [{{"index": 0, "finish_reason": "{finish}", "message": {message}}}],'
            f' "usage": {{"prompt_tokens": 640, "completion_tokens": 31, "total_tokens": 671}}}}, "latency_ms": 812.5}}\n'
        )


def _answer(function: str, number: int, rng: random.Random) -> tuple[str, str]:
    if rng.random() < NO_CALL_SHARE:
        return f'{{"role": "assistant", "content": "None of these fits request {number}."}}', "stop"
    arguments = json.dumps(json.dumps({"value": rng.randint(2, 10**6), "unit": rng.choice(_UNITS), "precise": True}))
    call = f'{{"id": "call_{number}", "type": "function", "function": {{"name": "{function}", "arguments": {arguments}}}}}'
    return f'{{"role": "assistant", "content": null, "tool_calls": [{call}]}}', "tool_calls"


def _tool(number: int, rng: random.Random) -> tuple[str, dict[str, object]]:
    verb, thing = rng.choice(_VERBS), rng.choice(_THINGS)
    name = f"{thing}_service.{verb}_{thing}_{number}"
    properties: dict[str, object] = {
        "value": {
            "type": "integer",
            "description": f"The amount to {verb} with, in {rng.choice(_UNITS)} unless `unit` says so.",
        },
        "unit": {"type": "string", "enum": _UNITS, "description": "The unit of `value`, one of those that are listed here."},
    }
    for extra in range(rng.randint(0, 3)):
        properties[f"option_{extra}"] = {
            "type": rng.choice(_TYPES),
            "description": f"Optional. How the {thing} is to be {verb}ed; the default is {rng.randint(0, 99)}.",
        }
    parameters = {"type": "object", "properties": properties, "required": ["value", "unit"]}
    description = f"{verb.capitalize()} a {thing} from the amount and the unit that the user gives, and return it as text."
    return name, {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
