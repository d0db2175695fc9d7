"""Judges for tests: rules by which a double of an OpenAI-compatible server answers the questions of a rubric."""

from __future__ import annotations

import json
from typing import Any


def material(body: dict[str, Any]) -> dict[str, Any]:
    """What a judge is shown."""
    return dict(json.loads(body["messages"][-1]["content"]))


def says(verdict: object) -> dict[str, Any]:
    """The assistant message with a verdict in it."""
    return {"role": "assistant", "content": verdict if isinstance(verdict, str) else json.dumps(verdict)}


def fair(body: dict[str, Any]) -> dict[str, Any]:
    """Right where the answer is the expected one; of two answers the one that says so."""
    shown = material(body)
    if "A" in shown:
        good = {name: "broken" in json.dumps(shown[name]) for name in ("A", "B")}
        return says({"winner": "tie" if good["A"] is good["B"] else "A" if good["A"] else "B"})
    if "tools" in shown:
        return says({"score": int(shown["answer"]["calls"] == shown["expected"])})
    return says({"score": 10 if shown["answer"] == shown["expected"] else 1})
