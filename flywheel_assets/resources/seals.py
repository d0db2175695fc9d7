"""Seals: whether a published version is still what it was when it was published.

A manifest holds the sha256 of every file of its version; the *seal* is the sha256 of the manifest, and lies where nobody who
edits the folder reaches it: in the event that reported the version to Dagster. What belongs here: hashing a folder again.
What does not: the event log (`flywheel_assets.seals`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from flywheel_assets.resources.artifacts import MANIFEST, Artifact, sha256_of_file


class Tampered(Exception):
    """A version is not what was published; the message names its file and says what to do."""


def seal_of(artifact: Artifact) -> str:
    """The first 40 hex digits of the sha256 of a version's manifest: a tag of Dagster has room for 63 characters."""
    return hashlib.sha256((artifact.path / MANIFEST).read_bytes()).hexdigest()[:40]


def faults_of(artifact: Artifact, seal: str | None) -> Iterator[str]:
    """What of a version is not as it was published, a sentence each. Reads every file of it once.

    `seal` is what was sealed when it was published; None where nothing was (versions of earlier releases).
    """
    if seal is not None and seal_of(artifact) != seal:
        yield f"{artifact.path / MANIFEST} was changed since it was published"
    for name, entry in artifact.manifest["files"].items():
        file = artifact.path / name
        if not file.is_file():
            yield f"{file} is gone"
        elif file.stat().st_size != entry["bytes"] or sha256_of_file(file) != entry["sha256"]:
            yield f"{file} was changed since it was published"
    known = {*artifact.manifest["files"], MANIFEST}
    for file in sorted(artifact.path.rglob("*")):
        # Nothing of ours is hidden, and file managers leave hidden files wherever somebody looks.
        if file.is_file() and not file.name.startswith(".") and file.relative_to(artifact.path).as_posix() not in known:
            yield f"{file} was put there since it was published"
