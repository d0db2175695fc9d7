"""Small JSON files: read whole, replaced whole."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import orjson


def read_json(path: Path) -> Any | None:
    """The content, or None where there is no file."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def write_json(path: Path, content: Any) -> None:
    """Replace the file: a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with draft.open("wb") as file:
        file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
