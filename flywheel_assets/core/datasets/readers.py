"""Readers: datasets as the rest of the platform takes them in.

What belongs here: reading what `build` wrote, row by row. What does not: reading records (`segments`, `index`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from flywheel_assets.core.datasets.eval_file import EVAL_FILE
from flywheel_assets.core.datasets.rendering import eval_row, read_eval_line, read_training_line
from flywheel_assets.core.rows import EvalRow, Json

TrainingSplit = Literal["train", "validation"]


def read_eval_rows(base: Path) -> list[EvalRow]:
    """The eval rows of a base folder, in the order of the exam."""
    with (base / EVAL_FILE).open("rb") as file:
        return [eval_row(read_eval_line(line)) for line in file]


def training_files(train: Path, split: TrainingSplit = "train") -> list[Path]:
    """The files of a split, in the order `datasets.load_dataset("json")` should read them; none where it has no rows."""
    return sorted((train / split).glob("*.jsonl"))


def iter_training_rows(train: Path, split: TrainingSplit = "train") -> Iterator[Json]:
    """The rows of a training folder, in ingestion order: `row_id`, `prompt` (messages), `tools` (JSON text), `completion`.

    `completion` is a list of one assistant message; `content` is always text, arguments of tool calls are JSON text.
    """
    for path in training_files(train, split):
        with path.open("rb") as file:
            for line in file:
                yield read_training_line(line)
