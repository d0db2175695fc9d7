"""Wheels as the package index serves them, in miniature: the real ones are 93 and 2 MB."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]


def question(identifier: str, text: str, *functions: Row) -> Row:
    return {"id": identifier, "question": [[{"role": "user", "content": text}]], "function": list(functions)}


def function(name: str, properties: Row | None = None, required: list[str] | None = None) -> Row:
    return {
        "name": name,
        "description": f"Does {name}.",
        "parameters": {"type": "dict", "properties": properties or {}, "required": required or []},
    }


@pytest.fixture
def write_wheel(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wheel of data files that pip accepts: `write_wheel("some-data", "1.0", {"member": b"content"})`."""

    def write(name: str, version: str, members: dict[str, bytes], folder: Path = tmp_path / "index") -> Path:
        distribution = f"{name.replace('-', '_')}-{version}"
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / f"{distribution}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
            archive.writestr(
                f"{distribution}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            archive.writestr(
                f"{distribution}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{distribution}.dist-info/RECORD", "")
        return wheel

    return write


@pytest.fixture
def write_bfcl(write_wheel: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a leaderboard wheel: `write_bfcl(simple_python=[(question, accepted)], irrelevance=[(question, None)])`."""

    def write(**categories: list[tuple[Row, Row | None]]) -> Path:
        members = {}
        for category, rows in categories.items():
            questions = [row for row, _ in rows]
            answers = [{"id": row["id"], "ground_truth": [accepted]} for row, accepted in rows if accepted is not None]
            members[f"bfcl_eval/data/BFCL_v4_{category}.json"] = _lines(questions)
            members[f"bfcl_eval/data/possible_answer/BFCL_v4_{category}.json"] = _lines(answers)
        return write_wheel("bfcl-eval", "0.1", members)

    return write


def _lines(rows: list[Row]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


@pytest.fixture
def make_question() -> Callable[..., Row]:
    return question


@pytest.fixture
def make_function() -> Callable[..., Row]:
    return function
