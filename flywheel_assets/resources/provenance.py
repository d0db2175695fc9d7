"""Provenance: from a published artifact back to what it was made from, by the data versions its manifest names."""

from __future__ import annotations

import orjson

from flywheel_assets.core.graph import ADAPTER, EVALS, EVERYTHING, PREFIX, Partition
from flywheel_assets.core.rows import Variant
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


def adapter_of(artifacts: ArtifactStore, decision: Artifact) -> Artifact | None:
    """The adapter that a decision's winner was examined with, whatever was trained since.

    None where nobody won, where the winner runs without one, or where the adapter is gone.
    """
    return _examined_with(artifacts, decision, Variant.CUSTOMIZED, ADAPTER)


def prefix_of(artifacts: ArtifactStore, decision: Artifact) -> Artifact | None:
    """The prefix that a decision's winner was examined with; None as for `adapter_of`."""
    return _examined_with(artifacts, decision, Variant.PREFIXED, PREFIX)


def _examined_with(artifacts: ArtifactStore, decision: Artifact, variant: Variant, asset: str) -> Artifact | None:
    candidate = decision.summary["candidate"]
    if decision.summary["variant"] != variant:
        return None
    evidence = orjson.loads((decision.path / "decision.json").read_bytes())["evidence"]
    winner = next(arm for arm in evidence["arms"] if (arm["candidate"], arm["variant"]) == (candidate, variant))
    partition = Partition(decision.partition.workload, candidate)
    return ancestor(artifacts, artifacts.version(EVALS[variant], partition, winner["version"]), asset)


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
