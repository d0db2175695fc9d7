"""Announcements: what Dagster's event log says was materialized last.

A ref whose event is missing (the process died between the two) counts as stale, so the lineage in the UI never lags
behind the truth for longer than one reconcile. Compared by data version: of all tags, only that one can be asked for
by partition in one query (Dagster indexes no other).
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from flywheel_assets.assets.keys import ALL_KEYS, NAME_OF
from flywheel_assets.core.graph import EVERYTHING, TRACES, Partition, Scope, scope_of
from flywheel_assets.core.planner import Target
from flywheel_assets.partitions import CANDIDATE_DIMENSION, WORKLOAD_DIMENSION

_MADE = [key for name, key in ALL_KEYS.items() if name != TRACES]
# Which event is an asset's latest: ids alone are given anew by every instance.
_Mark = tuple[int, str, float]


class Announcements:
    """Asks the event log, and remembers its answers: nearly always nothing was materialized between two ticks.

    One query says what every asset's latest materialization is; its partitions are asked for only where that is news.
    """

    def __init__(self) -> None:
        self._heard: dict[dg.AssetKey, tuple[_Mark, dict[Target, str]]] = {}

    def latest(self, instance: dg.DagsterInstance) -> dict[Target, str]:
        """The data version in the latest materialization event of every target."""
        found: dict[Target, str] = {}
        for record in instance.get_asset_records(_MADE):
            key, last = record.asset_entry.asset_key, record.asset_entry.last_materialization_record
            if last is None:
                continue
            mark = (last.storage_id, last.run_id, last.timestamp)
            heard = self._heard.get(key)
            if heard is None or heard[0] != mark:
                heard = self._heard[key] = (mark, _data_versions(instance, key, last))
            found |= heard[1]
        return found


def _data_versions(instance: dg.DagsterInstance, key: dg.AssetKey, last: dg.EventLogRecord) -> dict[Target, str]:
    """The data versions of an asset's partitions; `last` is the latest event of them all."""
    name = NAME_OF[key]
    if scope_of(name) is Scope.ALL:
        materialization = last.asset_materialization
        if materialization is None or not materialization.tags or DATA_VERSION_TAG not in materialization.tags:
            return {}
        return {(name, EVERYTHING): materialization.tags[DATA_VERSION_TAG]}
    latest = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {(name, _parse(text, scope_of(name))): tags[DATA_VERSION_TAG] for text, tags in latest.items()}


def _parse(key: str, scope: Scope) -> Partition:
    if scope is Scope.WORKLOAD:
        return Partition(key)
    # Dimensions stand in alphabetical order inside the string; slugs cannot contain the separator.
    by_name = dict(zip(sorted((CANDIDATE_DIMENSION, WORKLOAD_DIMENSION)), key.split("|"), strict=True))
    return Partition(by_name[WORKLOAD_DIMENSION], by_name[CANDIDATE_DIMENSION])
