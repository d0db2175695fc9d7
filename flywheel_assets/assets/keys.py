"""Asset keys: the one place where names become Dagster keys.

A string with a slash in `deps=` would make a one-component key and a dangling external asset; these constants do not.
"""

from __future__ import annotations

import dagster as dg

from flywheel_assets.core.graph import BY_NAME, NODES


def asset_key(name: str) -> dg.AssetKey:
    """The Dagster key of a node of the graph."""
    return dg.AssetKey(BY_NAME[name].name.split("/"))


ALL_KEYS: dict[str, dg.AssetKey] = {node.name: asset_key(node.name) for node in NODES}
NAME_OF: dict[dg.AssetKey, str] = {key: name for name, key in ALL_KEYS.items()}
