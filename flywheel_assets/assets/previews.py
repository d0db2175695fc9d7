"""Previews: a few rows as a person reads them in Dagster's UI, with secrets and personal data masked.

What belongs here: the first rows of a dataset, the examples of an evaluation, the messages of a prefix, the losses of a
report. What does not: numbers and pictures (`metadata`), and the files themselves, which nothing is masked in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from flywheel_assets.assets.metadata import bullet_table, code_block, page
from flywheel_assets.core.cleaning.mask import masked, masked_text
from flywheel_assets.core.rows import Json

_ROWS = 5
_CELL_CHARS = 300
_EXAMPLE_CHARS = 160
_ROW_CHARS = 4000
_TOOLS = 6


def eval_preview(path: Path) -> Mapping[str, Any]:
    """The first rows of `eval_data.jsonl`: what is asked, and the answer that counts as right."""
    rows = _first_rows(path)
    shown = [
        [
            _asked(row["request"]["messages"]),
            _offered(row["request"].get("tools")),
            _answer(row["response"]["choices"][0]["message"]),
        ]
        for row in rows
    ]
    return _preview(["asked", "tools offered", "right answer"], shown, rows)


def training_preview(path: Path) -> Mapping[str, Any]:
    """The first rows of a training file: what precedes, and the completion that is learned."""
    rows = _first_rows(path)
    shown = [
        [_asked(row["prompt"]), _offered(json.loads(row.get("tools") or "[]")), _answer(row["completion"][0])]
        for row in rows
    ]
    return _preview(["asked", "tools offered", "completion to learn"], shown, rows)


def example_table(examples: Sequence[Json]) -> dg.MarkdownMetadataValue:
    """A few questions with the expected and the given answer."""
    rows = []
    for example in masked(list(examples)):
        expected, answered = _given(example["expected"]), _given(example["answered"])
        # Said twice, the two would be as wide as the page, and look alike.
        shown = example["error"] or ("as expected" if answered == expected else answered)
        rows.append([_cut(example["question"], _EXAMPLE_CHARS), expected, _cut(shown, _EXAMPLE_CHARS)])
    return bullet_table(["asked", "expected", "answered"], rows)


def message_table(messages: Sequence[Json]) -> dg.MarkdownMetadataValue:
    """Messages in their order: who says what."""
    rows = [[message["role"], _answer(message)] for message in masked(list(messages))]
    return bullet_table(["who", "says"], rows)


def report_text(path: Path) -> dg.MarkdownMetadataValue:
    """A Markdown report; real losses stand in it."""
    return page(masked_text(path.read_text(encoding="utf-8")))


def _first_rows(path: Path) -> list[Json]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        rows: list[Json] = masked([json.loads(line) for line in islice(file, _ROWS)])
    return rows


def _preview(header: Sequence[str], shown: Sequence[Sequence[str]], rows: Sequence[Json]) -> Mapping[str, Any]:
    if not rows:
        return {"first rows": page("(no rows)")}
    whole = json.dumps(_readable(rows[0]), indent=1, ensure_ascii=False)
    return {
        "first rows": bullet_table(header, shown),
        "first row in full": code_block(_cut(whole, _ROW_CHARS), "json"),
    }


def _readable(value: Any) -> Any:
    """A row without the nulls that its file needs for its types, and with tools as objects instead of JSON text."""
    if isinstance(value, dict):
        opened = {**value, "tools": json.loads(value["tools"] or "[]")} if isinstance(value.get("tools"), str) else value
        return {name: _readable(inner) for name, inner in opened.items() if inner is not None}
    return [_readable(inner) for inner in value] if isinstance(value, list) else value


def _asked(messages: Sequence[Json]) -> str:
    """The last thing the user says, with how much was said before it."""
    asked = next((message for message in reversed(messages) if message["role"] == "user"), messages[-1])
    before = f"({len(messages) - 1} messages before) " if len(messages) > 1 else ""
    return before + _cut(_text(asked.get("content")))


def _offered(tools: Sequence[Json] | None) -> str:
    names = [tool.get("function", {}).get("name", "?") for tool in tools or ()]
    more = f" and {len(names) - _TOOLS} more" if len(names) > _TOOLS else ""
    return ", ".join(names[:_TOOLS]) + more or "none"


def _answer(message: Json) -> str:
    """An OpenAI message in one line: its calls, or its text."""
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in message.get("tool_calls") or ()]
    return _cut(", ".join(calls) or _text(message.get("content")) or "(nothing)")


def _given(answer: Json | None) -> str:
    """A scored answer in one line."""
    if answer is None:
        return "-"
    calls = ", ".join(f"{call['name']}({call['arguments']})" for call in answer["tool_calls"])
    return _cut(calls or answer["content"] or "(nothing)", _EXAMPLE_CHARS)


def _text(content: Any) -> str:
    """The text of a message's content, which may come in parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def _cut(text: str, longest: int = _CELL_CHARS) -> str:
    return text if len(text) <= longest else text[:longest] + " ..."
