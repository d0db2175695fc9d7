"""Seals in Dagster's event log: what was published is what is decided on, approved, served and sent to a hub.

Each materialization carries the seal of its version (`resources.seals`). Only what is about to be relied on is checked, so
that a turn does not read a home again and again; `flywheel verify` checks all of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dagster as dg

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core.graph import COMPARISON, DECISION, EVERYTHING, NODES, TRACES, Partition, Scope
from flywheel_assets.core.promotion import Action
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.json_files import Damaged, read_json
from flywheel_assets.resources.provenance import adapter_of, prefix_of
from flywheel_assets.resources.seals import Tampered, faults_of

SEAL_TAG = "flywheel/seal"
VERSION_TAG = "flywheel/version"
# Versions of one partition that are looked through for the one in question; approvals may be many turns old.
_LOOKED_THROUGH = 1000


@dataclass(frozen=True, slots=True)
class Verified:
    """One version and what is wrong with it; `sealed` False: it is older than seals, only its own manifest was checked."""

    artifact: Artifact
    sealed: bool
    faults: tuple[str, ...]


def verified(instance: dg.DagsterInstance, artifact: Artifact) -> Verified:
    """Look at every file of a version, and at what was sealed of it."""
    seal, others_sealed = _seal(instance, artifact)
    faults = list(faults_of(artifact, seal))
    if seal is None and others_sealed:
        faults.insert(0, f"{artifact.path} was never reported to Dagster, unlike other versions of it")
    return Verified(artifact, seal is not None, tuple(faults))


def require_untouched(instance: dg.DagsterInstance, artifacts: Iterable[Artifact | None]) -> None:
    """Raise Tampered where a version is not what was published. None stands for what is not there, and is passed over."""
    for artifact in artifacts:
        if artifact is None:
            continue
        if faults := verified(instance, artifact).faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise Tampered(
                f"{artifact.asset} of {artifact.partition}, version {artifact.version}: {faults[0]}{more}. Nothing is built "
                f"on it. Put the folder back from a backup, or move {artifact.path} away and run `flywheel run` to rebuild "
                "it; `flywheel verify` lists everything that was changed."
            )


def require_untouched_evidence(instance: dg.DagsterInstance, flywheel: Flywheel, workload: str, action: Action) -> None:
    """`require_untouched` for what an approval rests on: the decision, its comparison, and the model it is about."""
    artifacts, partition = flywheel.artifacts, Partition(workload)
    decision = artifacts.current(DECISION, partition)
    if action is not Action.APPROVE or decision is None:
        return
    require_untouched(instance, [decision, artifacts.current(COMPARISON, partition)])
    # By what the decision says, which is known to be what was published only now.
    require_untouched(instance, [adapter_of(artifacts, decision), prefix_of(artifacts, decision)])


def whole_home(instance: dg.DagsterInstance, flywheel: Flywheel) -> Iterator[Verified]:
    """Every current version, and the decisions that people acted on and that are no longer current."""
    found: dict[tuple[str, Partition, str], Artifact] = {}
    for artifact in _current(flywheel):
        found[artifact.asset, artifact.partition, artifact.version] = artifact
    for workload in flywheel.workloads():
        for act in flywheel.promotions.acts(workload):
            key = (DECISION, Partition(workload), act.decision)
            if key not in found:
                try:
                    found[key] = flywheel.artifacts.version(*key)
                except ArtifactMissing:
                    continue
    for artifact in found.values():
        yield verified(instance, artifact)


def placed_faults(flywheel: Flywheel, catalog: Artifact | None, name: str) -> Iterator[str]:
    """Whether the file that applications read is the current catalog's."""
    if catalog is None:
        return
    placed = flywheel.settings.home / name
    try:
        if read_json(placed) != read_json(catalog.path / name):
            yield f"{placed} is not what the catalog says; run `flywheel run` to write it again"
    except Damaged as error:
        yield str(error)


def _current(flywheel: Flywheel) -> Iterator[Artifact]:
    workloads = flywheel.workloads()
    for node in NODES:
        if node.name == TRACES:
            continue
        partitions = [EVERYTHING]
        if node.scope is Scope.WORKLOAD:
            partitions = [Partition(workload) for workload in workloads]
        elif node.scope is Scope.CELL:
            partitions = [Partition(workload, one) for workload, candidates in workloads.items() for one in candidates]
        for partition in partitions:
            if (artifact := flywheel.artifacts.current(node.name, partition)) is not None:
                yield artifact


def _seal(instance: dg.DagsterInstance, artifact: Artifact) -> tuple[str | None, bool]:
    """What was sealed of a version, and whether any version of its partition has a seal."""
    key = partition_key(artifact.partition)
    wanted = dg.AssetRecordsFilter(asset_key=asset_key(artifact.asset), asset_partitions=None if key is None else [key])
    cursor, looked, any_sealed = None, 0, False
    while looked < _LOOKED_THROUGH:
        page = instance.fetch_materializations(wanted, limit=50, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            tags = event.tags if event is not None and event.tags else {}
            any_sealed = any_sealed or SEAL_TAG in tags
            if tags.get(VERSION_TAG) == artifact.version and SEAL_TAG in tags:
                return tags[SEAL_TAG], True
        looked += len(page.records)
        if not page.has_more:
            break
        cursor = page.cursor
    return None, any_sealed
