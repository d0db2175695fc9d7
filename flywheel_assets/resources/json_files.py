"""Small JSON files: read whole, replaced whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson


class Damaged(ValueError):
    """A file of ours that cannot be read as what it is; the message names it and says what to do."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path} is damaged ({why}). Put it back from a backup, or move it away to begin anew.")


def read_json(path: Path) -> Any | None:
    """The content, or None where there is no file. Damaged where it is empty, cut off or no JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (orjson.JSONDecodeError, IsADirectoryError) as error:
        raise Damaged(path, error) from None


def read_object(path: Path, needs: Collection[str]) -> dict[str, Any] | None:
    """A JSON object with the keys it `needs`, of something that can be made again; None where it is not there or damaged."""
    try:
        content = read_json(path)
    except Damaged:
        return None
    return content if isinstance(content, dict) and all(key in content for key in needs) else None


def write_json(path: Path, content: Any) -> None:
    """Replace the file: a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with draft.open("wb") as file:
        file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
