"""Metadata: how numbers and pictures become what Dagster's UI shows inline. Rows do in `previews`, which masks them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import dagster as dg

from flywheel_assets.core.markdown_text import harmless, harmless_cell, harmless_code
from flywheel_assets.core.plots import HistoryPoint, score_history_png
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact

_PLOTTED_METRICS = 3
_BACKTICKS = re.compile("`+")
# Everything that an address may hold but what would end the link around it.
_URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%~"
# The first line of every page. Dagster shows tables and pictures behind a click; this is what needs none.
IN_SHORT = "in short"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; what stands in a cell is text, None is shown as a dash."""
    lines = [" | ".join(map(harmless_cell, header)), " | ".join("---" for _ in header)]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def counts(found: Mapping[str, Any]) -> str:
    """How many of what, in one line, in the order given."""
    return ", ".join(f"{name or '(none)'} {number:,}" for name, number in found.items()) or "none"


def bullet_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    """`markdown_table` as metadata."""
    return dg.MetadataValue.md(markdown_table(header, rows))


def bullets(sentences: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Sentences that may quote an endpoint or a label, as a list."""
    return dg.MetadataValue.md("\n".join(f"- {harmless(sentence)}" for sentence in sentences) or "-")


def code_list(names: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Names as a list, in the type of code."""
    return dg.MetadataValue.md("\n".join(f"- `{harmless_code(name)}`" for name in names) or "none")


def code_block(text: str, language: str) -> dg.MarkdownMetadataValue:
    """Text in the type of code, line by line; a fence inside it ends nothing."""
    fence = "`" * max(3, 1 + max((len(run) for run in _BACKTICKS.findall(text)), default=0))
    return dg.MetadataValue.md(f"{fence}{language}\n{text}\n{fence}")


def page(markdown: str) -> dg.MarkdownMetadataValue:
    """A whole page that `core` wrote, which escapes what it quotes (`core.markdown_text`)."""
    return dg.MetadataValue.md(markdown)


def link(url: str) -> dg.MarkdownMetadataValue:
    """A link that is short: Dagster breaks no address, and one wider than the page of a cell cuts off the whole page."""
    quoted = quote(url, safe=_URL_CHARACTERS)
    return dg.MetadataValue.md(f"[open](<{quoted}>)")


def url_of(value: dg.MetadataValue[Any]) -> str:
    """The address behind a `link`."""
    return str(value.value).removeprefix("[open](<").removesuffix(">)")


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG, shown inline."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def drawing(svg: str, alt: str) -> dg.MarkdownMetadataValue:
    """An SVG, shown inline; as an image it can neither run nor fetch anything."""
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return harmless_cell(value)


def score_table(scores: Mapping[str, Json]) -> dg.MarkdownMetadataValue:
    """Scores with their 95% intervals."""
    rows = [
        [name, s["value"], "" if s["low"] is None else f"[{s['low']:.3f}, {s['high']:.3f}]", s["n"]]
        for name, s in scores.items()
    ]
    return bullet_table(["metric", "mean", "95% interval", "rows"], rows)


def score_history(artifacts: Sequence[Artifact]) -> dict[str, dg.MarkdownMetadataValue]:
    """Every version's scores over time as a picture, `over time`; empty where there are fewer than two to compare."""
    scored = [artifact for artifact in artifacts if artifact.summary.get("scores")]
    if len(scored) < 2:
        return {}
    points = [
        HistoryPoint(datetime.fromtimestamp(artifact.manifest["created_at"], UTC), metric, s["value"], s["low"], s["high"])
        for artifact in scored
        for metric, s in list(artifact.summary["scores"].items())[:_PLOTTED_METRICS]
    ]
    return {"over time": picture(score_history_png(points), "scores over time, with 95% intervals")}
