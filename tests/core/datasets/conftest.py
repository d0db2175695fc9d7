"""Fixtures of the tests of datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.datasets.workbench import Workbench


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    """An empty workbench."""
    return Workbench(tmp_path / "bench")


@pytest.fixture
def make_workbench(tmp_path: Path) -> Callable[[str], Workbench]:
    """Further workbenches, by name."""
    return lambda name: Workbench(tmp_path / name)


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of every file of a folder, by relative name."""
    return lambda folder: {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
