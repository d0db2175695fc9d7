"""Specs: what an asset is called, who owns it and what the catalogue page says, made from the graph table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core.graph import BY_NAME, Scope
from flywheel_assets.partitions import WORKLOAD, cell_partitions
from flywheel_assets.settings import Settings

# What one partition of an asset stands for: `all`, `workload` or `cell`. The catalogue can be searched by it.
SCOPE_TAG = "flywheel/scope"
# CPU-heavy and GPU-heavy steps share this pool; its limit stands in dagster.yaml.
GPU_POOL = "gpu"


def spec(
    settings: Settings, name: str, *, description: str, kinds: Sequence[str], metadata: Mapping[str, Any] | None = None
) -> dg.AssetSpec:
    """The Dagster spec of one node of the graph. At most three `kinds` (Dagster's limit).

    `metadata` is what holds for every version, such as the columns of a table.
    """
    node = BY_NAME[name]
    return dg.AssetSpec(
        key=asset_key(name),
        deps=[asset_key(dep) for dep in node.deps],
        description=description,
        group_name=node.group,
        kinds=set(kinds),
        owners=list(settings.owners),
        code_version=node.code_version,
        partitions_def=partitions_def(settings, node.scope),
        tags=scope_tags(name),
        metadata=metadata,
    )


def scope_tags(name: str) -> dict[str, str]:
    """The tags of a node of the graph."""
    return {SCOPE_TAG: BY_NAME[name].scope.value}


def partitions_def(settings: Settings, scope: Scope) -> dg.PartitionsDefinition[str] | None:
    """How a scope is partitioned in Dagster."""
    if scope is Scope.WORKLOAD:
        return WORKLOAD
    return cell_partitions(settings) if scope is Scope.CELL else None


def check_spec(name: str, asset: str, description: str, settings: Settings, *, blocking: bool = True) -> dg.AssetCheckSpec:
    """A check with the partitions of its asset; a blocking one stops everything downstream of the same run."""
    return dg.AssetCheckSpec(
        name=name,
        asset=asset_key(asset),
        description=description,
        blocking=blocking,
        partitions_def=partitions_def(settings, BY_NAME[asset].scope),
    )
