"""Provenance: from a published artifact back to what it was made from, by the data versions its manifest names."""

from __future__ import annotations

from flywheel_assets.core.graph import EVERYTHING, Partition
from flywheel_assets.resources.artifacts import Artifact, ArtifactStore


def ancestor(artifacts: ArtifactStore, artifact: Artifact, asset: str) -> Artifact | None:
    """The version of an upstream asset that `artifact` was made from, however many steps before it.

    None where nothing upstream is that asset, or where its version is gone. Of several ways up the first is taken.
    """
    for source, data_version in artifact.manifest["inputs"].items():
        name, _, path = source.partition("@")
        found = _version_of(artifacts, name, _partition(path), data_version, before=artifact.manifest["created_at"])
        if found is None:
            continue
        if name == asset:
            return found
        if (further := ancestor(artifacts, found, asset)) is not None:
            return further
    return None


def _version_of(
    artifacts: ArtifactStore, asset: str, partition: Partition, data_version: str, *, before: float
) -> Artifact | None:
    """The latest version with that meaning which was there `before` (epoch seconds)."""
    candidates = [
        version
        for version in artifacts.history(asset, partition)
        if version.data_version == data_version and version.manifest["created_at"] <= before
    ]
    return candidates[-1] if candidates else None


def _partition(path: str) -> Partition:
    if path == EVERYTHING.path:
        return EVERYTHING
    workload, _, candidate = path.partition("/")
    return Partition(workload, candidate)
