"""Which asset partitions `flywheel run --again ASSET` means, and marking them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from flywheel_assets.cli_errors import UserError
from flywheel_assets.core.graph import EVALS, NODES, TRACES, Partition, Scope, scope_of
from flywheel_assets.core.planner import PlanItem, Target
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import wanted
from flywheel_assets.runner import Choice

# Short for all variants of a candidate.
_ALL_VARIANTS = "evals"


def marked(flywheel: Flywheel, assets: Sequence[str], choice: Choice) -> tuple[Flywheel, list[Target]]:
    """The flywheel as it would plan if these assets were asked for again in everything `choice` allows, and those targets.

    Nothing is written. What was asked for before and is not made yet keeps its mark: the answers it has are those of the
    model as it is now. Raises UserError for a name that is no asset which is made, or where the choice leaves nothing.
    """
    targets = [target for asset in _named(assets) for target in _targets(flywheel, asset, choice)]
    if assets and not targets:
        raise UserError(f"--again {' '.join(assets)}: nothing of that is made for these workloads and candidates.")
    # One mark for all: base and prefixed share answers where the prefix is empty.
    mark = uuid.uuid4().hex[:12]
    fresh = {
        target: mark for target in targets if not flywheel.again.is_pending(*target, flywheel.artifacts.current(*target))
    }
    return replace(flywheel, assumed_again=fresh), targets


def mark(flywheel: Flywheel, assets: Sequence[str], choice: Choice) -> list[Target]:
    """Mark what is meant (`marked`), so that this turn or any later one makes it again; those targets."""
    assumed, targets = marked(flywheel, assets, choice)
    for target, token in assumed.assumed_again.items():
        flywheel.again.set(*target, token)
    return targets


def _named(assets: Sequence[str]) -> list[str]:
    known = [node.name for node in NODES if node.name != TRACES]
    names: dict[str, None] = {}
    for asset in assets:
        if asset == _ALL_VARIANTS:
            names |= dict.fromkeys(EVALS.values())
        elif asset in known:
            names[asset] = None
        else:
            raise UserError(
                f"--again {asset}: no asset of that name is made. There are: {', '.join(known)}; "
                f"{_ALL_VARIANTS} stands for {', '.join(EVALS.values())}."
            )
    return list(names)


def _targets(flywheel: Flywheel, asset: str, choice: Choice) -> list[Target]:
    scope = scope_of(asset)
    workloads = flywheel.workloads()
    if scope is Scope.ALL:
        partitions = [Partition()]
    elif scope is Scope.WORKLOAD:
        partitions = [Partition(workload) for workload in workloads]
    else:
        partitions = [Partition(workload, candidate) for workload, ids in workloads.items() for candidate in ids]
    return [
        (asset, partition)
        for partition in partitions
        if choice.allows(PlanItem(asset, partition, "", None)) and wanted(flywheel.settings, asset, partition)
    ]
