"""Partitions: how Dagster's keys and the flywheel's partitions stand for each other.

Workloads are dynamic (they are found in the traffic), candidates static (they are in flywheel.yaml). Keys are slugs
(`core.slugs`), because Dagster validates dynamic keys not at all, and a `|` in one makes its cells vanish.
"""

from __future__ import annotations

import dagster as dg

from flywheel_assets.core.graph import EVERYTHING, Partition
from flywheel_assets.settings import Settings

WORKLOAD_DIMENSION = "workload"
CANDIDATE_DIMENSION = "candidate"

WORKLOAD = dg.DynamicPartitionsDefinition(name=WORKLOAD_DIMENSION)


def candidate_partitions(settings: Settings) -> dg.StaticPartitionsDefinition:
    """One partition a candidate of flywheel.yaml, in its order."""
    return dg.StaticPartitionsDefinition([candidate.id for candidate in settings.candidates])


def cell_partitions(settings: Settings) -> dg.MultiPartitionsDefinition:
    """Workload x candidate."""
    return dg.MultiPartitionsDefinition({WORKLOAD_DIMENSION: WORKLOAD, CANDIDATE_DIMENSION: candidate_partitions(settings)})


def partition_key(partition: Partition) -> str | None:
    """Dagster's key for a partition; None for the unpartitioned one."""
    if partition.candidate:
        # Never formatted by hand: Dagster orders the dimensions alphabetically inside the string.
        return dg.MultiPartitionKey({WORKLOAD_DIMENSION: partition.workload, CANDIDATE_DIMENSION: partition.candidate})
    return partition.workload or None


def partition_of(context: dg.AssetExecutionContext) -> Partition:
    """The flywheel's partition a body was started for."""
    if not context.has_partition_key:
        return EVERYTHING
    key = context.partition_key
    if isinstance(key, dg.MultiPartitionKey):
        return Partition(key.keys_by_dimension[WORKLOAD_DIMENSION], key.keys_by_dimension[CANDIDATE_DIMENSION])
    return Partition(key)
