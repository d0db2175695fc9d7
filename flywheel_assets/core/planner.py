"""The planner: the one place that knows what is stale, and why.

`plan(state)` is a pure function of what is published (refs), what failed, and what the settings and the trace store say
now. `flywheel run` and the `reconcile` sensor both execute its answer; nothing else decides what to compute.

What does not belong here: reading refs from disk, Dagster, running anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flywheel_assets.core.graph import (
    BY_NAME,
    MADE_TOGETHER,
    MAY_HAVE_FAILED,
    NODES,
    OPTIONAL_DEPS,
    TRACES,
    WAITS_FOR_KILLED,
    Node,
    Partition,
    Scope,
    inputs_key,
    upstream_partitions,
)
from flywheel_assets.core.rows import Json

Target = tuple[str, Partition]
Attempt = tuple[str, Partition, str]  # asset, partition, inputs_key

# Stands for an upstream that ended badly in the inputs of a fan-in, so that filling it later changes the key.
HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Published:
    """The current version of one asset partition, as its ref says.

    `state` is `ok`, `failed` (published, but not usable as evidence) or `skipped`; `blocked` holds the reason where a
    blocking check failed; `announced` is False where the event log lacks the materialization that echoes this ref.
    """

    inputs_key: str
    data_version: str
    state: str = "ok"
    reason: str | None = None
    blocked: str | None = None
    announced: bool = True

    @property
    def usable(self) -> bool:
        """Whether a downstream body may read it."""
        return self.state != "failed" and self.blocked is None


# How often in a row a run may be killed before that counts as an answer: what runs out of memory every time must not hold up
# a whole workload for ever.
MOST_KILLS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """The last attempt at an asset partition ended badly, for these inputs.

    `kills` counts the attempts in a row that were killed or cancelled before they could say anything; 0: it ended in an
    error of its own. `run_id` is the Dagster run whose body said so; empty where no body could.
    """

    inputs_key: str
    message: str
    kills: int = 0
    run_id: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether it says nothing about what was attempted."""
        return 0 < self.kills < MOST_KILLS


@dataclass(frozen=True, slots=True)
class FlywheelState:
    """Everything the planner looks at.

    `workloads`: workload -> candidates examined on it. `watermarks`: workload -> where its trace store stands.
    `settings_slice(asset, partition)`: the part of the settings that partition reads. `wanted(asset, partition)`: False
    for optional assets that nothing asks for. `again`: targets that a person wants made again (their slices hold a mark for
    the keys to see).
    """

    workloads: Mapping[str, tuple[str, ...]]
    watermarks: Mapping[str, str]
    settings_slice: Callable[[str, Partition], Json]
    wanted: Callable[[str, Partition], bool]
    published: Mapping[Target, Published] = field(default_factory=dict)
    failures: Mapping[Target, Failure] = field(default_factory=dict)
    again: frozenset[Target] = frozenset()


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One asset partition to materialize. `waits_for` names planned upstream targets that must come first."""

    asset: str
    partition: Partition
    reason: str
    inputs_key: str | None
    waits_for: tuple[Target, ...] = ()
    retries_failure: bool = False

    @property
    def target(self) -> Target:
        """What would be materialized."""
        return self.asset, self.partition

    @property
    def ready(self) -> bool:
        """Whether everything upstream is in place."""
        return not self.waits_for


@dataclass(frozen=True, slots=True)
class Hole:
    """One asset partition that cannot be made now, and why.

    `inherited`: the cause is something before it, which is a hole of its own and says the same.
    """

    asset: str
    partition: Partition
    reason: str
    inherited: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in an order that respects dependencies, and what cannot be done."""

    items: tuple[PlanItem, ...]
    holes: tuple[Hole, ...]

    def item(self, target: Target) -> PlanItem | None:
        """The planned item for a target, if it is planned."""
        return next((item for item in self.items if item.target == target), None)


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where one target stands while planning: its contribution to downstream keys, or what it waits for.

    `made`: it is published for today's inputs, though it may be `broken` for what is built on it (a check failed).
    """

    version: str | None
    fresh: bool
    broken: str | None = None
    unfinished: bool = False
    inherited: bool = False
    made: bool = False


def plan(state: FlywheelState, *, given_up: frozenset[Attempt] = frozenset()) -> Plan:
    """What is stale, in topological order, each with its reason.

    `given_up` holds attempts whose failure must not be tried again: `flywheel run` adds what failed under its hands, the
    sensor adds every recorded failure, so that one broken cell is no endless loop.
    """
    standings: dict[Target, _Standing] = {}
    assessed: dict[Target, tuple[_Standing, PlanItem | None]] = {}
    items: list[PlanItem] = []
    holes: list[Hole] = []
    for target in _targets(state):
        if target not in assessed:
            of_one_body = {other: _assess(other, state, standings, given_up) for other in _body_of(target)}
            assessed |= _together(of_one_body, state)
        standings[target], item = assessed[target]
        if item is not None:
            items.append(item)
        elif (broken := standings[target].broken) is not None:
            holes.append(Hole(*target, broken, standings[target].inherited))
    return Plan(tuple(items), tuple(holes))


def _body_of(target: Target) -> list[Target]:
    """Everything that one body makes in a partition, `target` among it."""
    name, partition = target
    names = next((body for body in MADE_TOGETHER if name in body), frozenset({name}))
    return [(node.name, partition) for node in NODES if node.name in names]


def _together(
    assessed: Mapping[Target, tuple[_Standing, PlanItem | None]], state: FlywheelState
) -> Mapping[Target, tuple[_Standing, PlanItem | None]]:
    """The targets of one body: if one is to be made, all are, for Dagster has no run of a part; if one cannot, none can.

    One that is up to date stays so for what is built on it: the body only points to it again. So does one whose check
    failed, and nothing is built on it.
    """
    stale = [item for _, item in assessed.values() if item is not None]
    if not stale or len(assessed) == 1:
        return assessed
    standings = [standing for standing, _ in assessed.values()]
    broken = next((one for one in standings if one.broken is not None and not one.made), None)
    if broken is not None:
        return {
            target: (standing if standing.broken is not None else broken, None) for target, (standing, _) in assessed.items()
        }
    return {
        target: (
            standing,
            item or PlanItem(*target, f"made together with {stale[0].asset}", state.published[target].inputs_key),
        )
        for target, (standing, item) in assessed.items()
    }


def every_failure(state: FlywheelState, *, but_unfinished: bool = False) -> frozenset[Attempt]:
    """All recorded failures, as attempts to give up; `but_unfinished` leaves out those that say nothing (see `Failure`)."""
    failed = {
        (*target, failure.inputs_key)
        for target, failure in state.failures.items()
        if not (but_unfinished and failure.unfinished)
    }
    failed |= {(*target, version.inputs_key) for target, version in state.published.items() if version.state == "failed"}
    return frozenset(failed)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a body would read now. `versions`: `<asset>@<partition path>` -> data version, or `hole`.

    `missing` lists upstream targets that are not there, each with the reason; a fan-in reads them as holes instead, unless
    their run was merely killed.
    """

    versions: Mapping[str, str]
    missing: tuple[Hole, ...]
    key: str


def inputs_of(target: Target, state: FlywheelState) -> Inputs:
    """The inputs of one target, as its body sees them: like the planner, but a stale upstream still counts as it stands.

    A person may materialize one asset by hand while something upstream is stale; Dagster's users expect that to work.
    """
    given_up = every_failure(state)
    standings: dict[Target, _Standing] = {}
    for other in _targets(state):
        if other == target:
            break
        standings[other] = _assess(other, state, standings, given_up)[0]
    node = BY_NAME[target[0]]
    versions: dict[str, str] = {}
    missing: list[Hole] = []
    for source in _sources(node, target[1], state):
        standing = standings[source]
        published = state.published.get(source)
        version = standing.version if standing.fresh else None
        if version is None and standing.broken is None and published is not None and published.usable:
            version = published.data_version
        waits = standing.unfinished and node.name in WAITS_FOR_KILLED
        if version is None and (waits or source[0] not in MAY_HAVE_FAILED.get(node.name, ())):
            missing.append(Hole(*source, standing.broken or "not made yet"))
        versions[f"{source[0]}@{source[1].path}"] = version or HOLE
    key = inputs_key(node.name, versions, state.settings_slice(*target))
    return Inputs(versions, tuple(missing), key)


def _targets(state: FlywheelState) -> list[Target]:
    """Every wanted target, upstream before downstream."""
    return [
        (node.name, partition)
        for node in NODES
        for partition in _partitions(node, state)
        if node.name == TRACES or state.wanted(node.name, partition)
    ]


def _partitions(node: Node, state: FlywheelState) -> list[Partition]:
    if node.scope is Scope.ALL:
        return [Partition()] if state.workloads else []
    if node.scope is Scope.WORKLOAD:
        return [Partition(workload) for workload in sorted(state.workloads)]
    return [
        Partition(workload, candidate) for workload in sorted(state.workloads) for candidate in state.workloads[workload]
    ]


def _sources(node: Node, partition: Partition, state: FlywheelState) -> list[Target]:
    """The upstream targets of one partition that are wanted."""
    return [
        (dep, source)
        for dep in node.deps
        for source in upstream_partitions(dep, partition, state.workloads)
        if dep not in OPTIONAL_DEPS.get(node.name, ()) or state.wanted(dep, source)
    ]


def _assess(
    target: Target, state: FlywheelState, standings: Mapping[Target, _Standing], given_up: frozenset[Attempt]
) -> tuple[_Standing, PlanItem | None]:
    """Where one target stands, and what to do about it."""
    name, partition = target
    node = BY_NAME[name]
    if name == TRACES:
        watermark = state.watermarks.get(partition.workload)
        broken = None if watermark else f"no records of workload '{partition.workload}' in the trace store; ingest some"
        return _Standing(watermark, fresh=watermark is not None, broken=broken), None

    versions: dict[str, str] = {}
    waits_for: list[Target] = []
    for source in _sources(node, partition, state):
        standing = standings[source]
        waits = standing.unfinished and name in WAITS_FOR_KILLED
        if standing.broken is not None and (waits or source[0] not in MAY_HAVE_FAILED.get(name, ())):
            # The first cause, named once: a chain of ten failures must not become ten nested prefixes.
            blamed = standing.broken if standing.inherited else f"upstream {source[0]}: {standing.broken}"
            unfinished = standing.unfinished
            return _Standing(None, fresh=False, broken=blamed, unfinished=unfinished, inherited=True), None
        if standing.broken is None and not standing.fresh:
            waits_for.append(source)
        versions[f"{source[0]}@{source[1].path}"] = standing.version or HOLE
    stale = _Standing(None, fresh=False)
    if waits_for:
        return stale, PlanItem(name, partition, f"after {_names(waits_for)}", None, tuple(waits_for))

    key = inputs_key(name, versions, state.settings_slice(name, partition))
    published = state.published.get(target)
    failure = _failure_of(key, published, state.failures.get(target))
    if failure is not None and (name, partition, key) in given_up:
        return _Standing(None, fresh=False, broken=failure.message, unfinished=failure.unfinished), None
    if failure is not None:
        return stale, PlanItem(name, partition, f"failed before: {failure.message}", key, retries_failure=True)
    if published is None:
        return stale, PlanItem(name, partition, "never made", key)
    if published.inputs_key != key:
        reason = "asked for again" if target in state.again else "its inputs or settings changed"
        return stale, PlanItem(name, partition, reason, key)
    if not published.announced:
        return stale, PlanItem(name, partition, "published, but its event is missing", key)
    if published.blocked is not None:
        return _Standing(None, fresh=False, broken=published.blocked, made=True), None
    return _Standing(published.data_version, fresh=True, made=True), None


def _failure_of(key: str, published: Published | None, failure: Failure | None) -> Failure | None:
    """How the attempt with exactly these inputs failed, if it did."""
    if failure is not None and failure.inputs_key == key:
        return failure
    if published is not None and published.inputs_key == key and published.state == "failed":
        return Failure(key, published.reason or "failed")
    return None


def _names(targets: list[Target]) -> str:
    shown = [f"{asset} of {partition}" for asset, partition in targets[:3]]
    return ", ".join(shown) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
