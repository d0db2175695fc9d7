"""Announcements: what Dagster's event log says was materialized last.

A ref whose event is missing (the process died between the two) counts as stale, so the lineage in the UI never lags
behind the truth for longer than one reconcile. Compared by data version: of all tags, only that one can be asked for
by partition in one query (Dagster indexes no other).
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from flywheel_assets.assets.keys import ALL_KEYS
from flywheel_assets.core.graph import EVERYTHING, TRACES, Partition, Scope, scope_of
from flywheel_assets.core.planner import Target
from flywheel_assets.partitions import CANDIDATE_DIMENSION, WORKLOAD_DIMENSION
from flywheel_assets.resources.artifacts import ArtifactStore


def announced(instance: dg.DagsterInstance, artifacts: ArtifactStore) -> dict[Target, str]:
    """The data version in the latest materialization event of every target that may be published.

    One query an asset, and none for an asset without refs: an event that no ref stands behind says nothing.
    """
    found: dict[Target, str] = {}
    for name, key in ALL_KEYS.items():
        if name == TRACES or not artifacts.ever_published(name):
            continue
        if scope_of(name) is Scope.ALL:
            event = instance.get_latest_materialization_event(key)
            materialization = event.asset_materialization if event is not None else None
            if materialization is not None and materialization.tags and DATA_VERSION_TAG in materialization.tags:
                found[(name, EVERYTHING)] = materialization.tags[DATA_VERSION_TAG]
            continue
        latest = instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        for text, tags in latest.items():
            found[(name, _parse(text, scope_of(name)))] = tags[DATA_VERSION_TAG]
    return found


def _parse(key: str, scope: Scope) -> Partition:
    if scope is Scope.WORKLOAD:
        return Partition(key)
    # Dimensions stand in alphabetical order inside the string; slugs cannot contain the separator.
    by_name = dict(zip(sorted((CANDIDATE_DIMENSION, WORKLOAD_DIMENSION)), key.split("|"), strict=True))
    return Partition(by_name[WORKLOAD_DIMENSION], by_name[CANDIDATE_DIMENSION])
