"""Checkpoints: what a killed training continues from.

What belongs here: which checkpoint counts. What does not: writing one, which the trainer of transformers does; it writes
into the folder itself, so a kill can leave half a checkpoint behind under its final name.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from .report import write_json

_NAME = re.compile(r"^checkpoint-(\d+)$")
_MARK = "complete.json"
_INPUTS = "inputs.json"


def open_checkpoints(work_dir: Path, fingerprint: str) -> dict[str, Any]:
    """Make the folder ready for a training of this fingerprint, and return what an earlier attempt noted there.

    Checkpoints of another fingerprint, and half-written ones, are removed.
    """
    inputs = work_dir / _INPUTS
    notes: dict[str, Any] = {}
    if inputs.is_file():
        notes = json.loads(inputs.read_text(encoding="utf-8"))
    same = notes.get("fingerprint") == fingerprint
    for folder in _folders(work_dir):
        if not same or not (folder / _MARK).is_file():
            shutil.rmtree(folder)
    if not same:
        notes = {"fingerprint": fingerprint}
        write_json(inputs, notes)
    return notes


def note(work_dir: Path, notes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Keep something for a later attempt; returns the notes with it."""
    notes = {**notes, **more}
    write_json(work_dir / _INPUTS, notes)
    return notes


def mark_complete(work_dir: Path, step: int) -> None:
    """Say that the checkpoint of this step is fully written."""
    write_json(work_dir / f"checkpoint-{step}" / _MARK, {"step": step})


def latest(work_dir: Path) -> Path | None:
    """The complete checkpoint of the highest step."""
    complete = [folder for folder in _folders(work_dir) if (folder / _MARK).is_file()]
    return max(complete, key=_step, default=None)


def _folders(work_dir: Path) -> list[Path]:
    return [folder for folder in work_dir.iterdir() if folder.is_dir() and _NAME.match(folder.name)]


def _step(folder: Path) -> int:
    match = _NAME.match(folder.name)
    return int(match[1]) if match else -1
