"""A package that is installed as far as Python can tell: a module and a dist-info folder on the path."""

from __future__ import annotations

import shutil
from pathlib import Path


def install(folder: Path, name: str, code: str, entry_points: dict[str, dict[str, str]], *, version: str = "1.0") -> Path:
    """Write package `name` with one module of that name; `entry_points` is by group, then by name. Returns `folder`.

    Another version of it takes its place. The folder must then be put on `sys.path`, or into PYTHONPATH for a process of its
    own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    for older in folder.glob(f"{name}-*.dist-info"):
        shutil.rmtree(older)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [
        line
        for group, points in entry_points.items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
