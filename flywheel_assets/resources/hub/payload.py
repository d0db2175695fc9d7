"""The payload on disk: the files that are published, their hashes, and the door they leave by.

What belongs here: collecting files by name, hashing, refusing what must not leave. What does not: which names there are and
what is looked for in them (`core.payload`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.core.payload import PUBLISHED, findings, is_examined

_CHUNK = 1 << 20


class PayloadRefused(Exception):
    """A file holds what must not leave this machine; the message names the file and the kind, never the value."""


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it lies, its size in bytes, and its hashes as Git LFS and as Git name it."""

    path: Path
    size: int
    sha256: str
    git_sha1: str

    @classmethod
    def at(cls, path: Path) -> File:
        """The file at a path, read once."""
        size = path.stat().st_size
        large, small = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                large.update(chunk)
                small.update(chunk)
        return cls(path, size, large.hexdigest(), small.hexdigest())


@dataclass(frozen=True, slots=True)
class Payload:
    """Files by their name in the repository."""

    files: Mapping[str, File]

    @property
    def digest(self) -> str:
        """Hash of names and contents (32 hex digits)."""
        lines = "".join(f"{name} {file.sha256}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()[:32]


def collect(files: Mapping[str, Path], policy: CleaningPolicy, private_paths: Mapping[str, str]) -> Payload:
    """The payload of these files, each looked through (`core.payload.findings`).

    Raises PayloadRefused for a finding, for text that is no text, and for a name that is never published.
    """
    faults: list[str] = []
    for name, path in sorted(files.items()):
        if name not in PUBLISHED:
            faults.append(f"{name} is no file of an adapter")
        elif is_examined(name):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                faults.append(f"{name} is no UTF-8 text")
                continue
            faults += findings(name, text, policy, private_paths)
    if faults:
        raise PayloadRefused("; ".join(faults))
    return Payload({name: File.at(path) for name, path in sorted(files.items())})
