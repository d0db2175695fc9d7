"""Writes the reference pages that are made from code: `python docs/generate_reference.py`.

What belongs here: the shape of docs/command-line.md, docs/assets.md and docs/metrics-table.md. What does not: a word about
any command, asset or metric; those stand beside it in the code. `tests/test_reference_pages.py` fails while they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import typer

from flywheel_assets.assets.keys import NAME_OF
from flywheel_assets.cli import app
from flywheel_assets.core.graph import NODES
from flywheel_assets.core.metrics.registry import BUILT_IN, MAIN_METRIC
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.definitions import build_defs
from flywheel_assets.settings import load_settings

HERE = Path(__file__).parent
MADE = "<!-- Written by docs/generate_reference.py. Change the text beside the code it is about. -->\n"
_SCOPES = {"all": "unpartitioned", "workload": "workload", "cell": "workload x candidate"}


def pages() -> dict[Path, str]:
    """Every page by its file."""
    return {
        HERE / "command-line.md": command_line(),
        HERE / "assets.md": assets(),
        HERE / "metrics-table.md": metrics(),
    }


def command_line() -> str:
    """Every command of `flywheel` with its arguments and options."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        MADE,
        "`flywheel COMMAND --help` says the same. Every command reads the flywheel.yaml at or above the working folder and",
        "`.env` beside it. Exit code 2: the command could not do its work, and the message says what to do.\n",
    ]
    for name, command in group.commands.items():
        parts += [f"## `flywheel {name}`\n", _help(command.help or ""), *_parameters(command), ""]
    return "\n".join(parts)


def _help(text: str) -> str:
    """Click's help as Markdown: what follows a backspace keeps its lines."""
    shown = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("\b\n"):
            heading, *lines = paragraph.removeprefix("\b\n").splitlines()
            shown.append(f"{heading}\n\n```text\n" + "\n".join(line.removeprefix("  ") for line in lines) + "\n```")
        else:
            shown.append(" ".join(paragraph.split()))
    return "\n\n".join(shown) + "\n"


def _parameters(command: Any) -> Iterator[str]:
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        many = "..." if parameter.nargs == -1 else ""
        name = f"{parameter.name.upper()}{many}" if argument else ", ".join(parameter.opts)
        default = parameter.default
        shown = "" if default is None or callable(default) or default is False or parameter.required else f"`{default}`"
        rows.append([f"`{name}`", str(getattr(parameter, "help", "") or ""), "required" if parameter.required else shown])
    if rows:
        yield _table(["", "meaning", "default"], rows)


def assets() -> str:
    """Every asset of the graph, with its checks."""
    defs = build_defs(load_settings())
    graph = defs.get_repository_def().asset_graph
    parts = [
        "# Assets\n",
        MADE,
        "What the graph of this clone's flywheel.yaml holds; how the parts hang together: [architecture](architecture.md).",
        "A blocking check that fails keeps everything downstream of that partition from being built.\n",
    ]
    for node in NODES:
        key = next(key for key, name in NAME_OF.items() if name == node.name)
        asset = graph.get(key)
        made_from = ", ".join(f"`{dep}`" for dep in node.deps) or "the trace store"
        parts += [
            f"## `{node.name}`\n",
            f"{_one_line(asset.description or '')}\n",
            f"Group {node.group}, by {_SCOPES[node.scope]}; made from {made_from}; code version {node.code_version}.\n",
        ]
        checks = [
            [f"`{spec.name}`", "yes" if spec.blocking else "warns", _one_line(spec.description or "")]
            for spec in _checks(graph, key)
        ]
        if checks:
            parts.append(_table(["check", "blocking", "passes where"], checks))
    return "\n".join(parts)


def _checks(graph: dg.AssetGraph, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    found = [graph.get_check_spec(check) for check in graph.get_check_keys_for_assets({key})]
    return sorted(found, key=lambda spec: spec.name)


def metrics() -> str:
    """The built-in metrics by workload type."""
    rows = [
        [f"`{metric.name}`" + (" (main)" if MAIN_METRIC[kind] == metric.name else ""), kind, _one_line(metric.definition)]
        for kind in WorkloadType
        for metric in BUILT_IN
        if kind in metric.applies_to
    ]
    opening = [
        "# Metrics at a glance\n",
        MADE,
        "Columns of `predictions.parquet`, 0..1, null where a metric does not apply. The main one is what a report is",
        "summed up by and what the default gate looks at. Definitions in full, and what they were held against:",
        "[metrics.md](metrics.md). One of your own: [extending.md](extending.md#a-metric).\n",
    ]
    return "\n".join([*opening, _table(["metric", "workload type", "in one line"], rows)])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
