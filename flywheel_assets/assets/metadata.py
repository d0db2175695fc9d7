"""Metadata: how numbers, rows and pictures become what Dagster's UI shows inline."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from flywheel_assets.core.plots import HistoryPoint, score_history_png
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 600
_CELL_CHARS = 300
_PLOTTED_METRICS = 3


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; `|` inside a cell is escaped, None is shown as a dash."""
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def bullet_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    """`markdown_table` as metadata."""
    return dg.MetadataValue.md(markdown_table(header, rows))


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG, shown inline."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def drawing(svg: str, alt: str) -> dg.MarkdownMetadataValue:
    """An SVG, shown inline; as an image it can neither run nor fetch anything."""
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")


def jsonl_preview(path: Path, rows: int = _PREVIEW_ROWS) -> dg.MarkdownMetadataValue:
    """The first rows of a JSONL file, each cut to a readable length."""
    if not path.is_file():
        return dg.MetadataValue.md("(no rows)")
    with path.open(encoding="utf-8") as file:
        shown = [_shorten(json.dumps(json.loads(line), indent=1, ensure_ascii=False)) for line in islice(file, rows)]
    return dg.MetadataValue.md("\n\n".join(f"```json\n{row}\n```" for row in shown) or "(no rows)")


def _shorten(text: str) -> str:
    return text if len(text) <= _PREVIEW_CHARS else text[:_PREVIEW_CHARS] + " ..."


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def score_table(scores: Mapping[str, Json]) -> dg.MarkdownMetadataValue:
    """Scores with their 95% intervals."""
    rows = [
        [name, s["value"], "" if s["low"] is None else f"[{s['low']:.3f}, {s['high']:.3f}]", s["n"]]
        for name, s in scores.items()
    ]
    return bullet_table(["metric", "mean", "95% interval", "rows"], rows)


def example_table(examples: Sequence[Json]) -> dg.MarkdownMetadataValue:
    """A few questions with the expected and the given answer."""
    rows = [
        [example["question"], _answer(example["expected"]), example["error"] or _answer(example["answered"])]
        for example in examples
    ]
    return bullet_table(["asked", "expected", "answered"], rows)


def score_history(artifacts: Sequence[Artifact]) -> dg.MarkdownMetadataValue:
    """Every version's scores over time, as a picture."""
    points = [
        HistoryPoint(datetime.fromtimestamp(artifact.manifest["created_at"], UTC), metric, s["value"], s["low"], s["high"])
        for artifact in artifacts
        for metric, s in list(artifact.summary.get("scores", {}).items())[:_PLOTTED_METRICS]
    ]
    return picture(score_history_png(points), "scores over time, with 95% intervals")


def _answer(answer: Json | None) -> str:
    if answer is None:
        return "-"
    calls = ", ".join(f"{call['name']}({call['arguments']})" for call in answer["tool_calls"])
    return _shorten_cell(calls or answer["content"] or "(nothing)")


def _shorten_cell(text: str) -> str:
    return text if len(text) <= _CELL_CHARS else text[:_CELL_CHARS] + " ..."
