"""The graph: which assets a flywheel has, how each is partitioned and what it is made from.

The one table that the planner, the Dagster assets and the documentation are built from. What belongs here: names, scopes,
dependencies, groups, code versions. What does not: how an asset is made (`assets`) or when (`core.planner`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson

from flywheel_assets.core.rows import Json, Variant


class Scope(StrEnum):
    """What one partition of an asset stands for."""

    ALL = "all"
    WORKLOAD = "workload"
    CELL = "cell"


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A workload, a cell (workload and candidate), or, with neither, everything."""

    workload: str = ""
    candidate: str = ""

    @property
    def scope(self) -> Scope:
        """The scope this partition belongs to."""
        if self.candidate:
            return Scope.CELL
        return Scope.WORKLOAD if self.workload else Scope.ALL

    @property
    def path(self) -> str:
        """A relative path that names the partition: `all`, `<workload>` or `<workload>/<candidate>`."""
        return "/".join(part for part in (self.workload, self.candidate) if part) or "all"

    def __str__(self) -> str:
        return " x ".join(part for part in (self.workload, self.candidate) if part) or "everything"


EVERYTHING = Partition()


@dataclass(frozen=True, slots=True)
class Node:
    """One asset. `code_version` is raised by hand whenever the same inputs would give another meaning.

    `reads_itself`: what it means depends on its own version before (sides that are for ever, a history that grows), so an
    older version with equal inputs is never pointed to again. An asset that only saves work by its version before does not.
    """

    name: str
    scope: Scope
    deps: tuple[str, ...]
    group: str
    code_version: str = "1"
    reads_itself: bool = False


TRACES = "traces"
RECORDS = "records"
PROFILE = "workload_profile"
BASE = "datasets/base"
TRAIN = "datasets/train"
VALIDATION_EVAL = "evals/validation"
PREFIX = "prefix"
FINETUNE_DECISION = "finetune_decision"
ADAPTER = "adapter"
EVALS: Mapping[Variant, str] = {variant: f"evals/{variant}" for variant in Variant}
TEACHER_EVAL = "evals/teacher"
COMPARISON = "comparison"
DECISION = "decision"
CATALOG = "model_catalog"
PUBLISHED_ADAPTER = "published_adapter"

NODES: tuple[Node, ...] = (
    Node(TRACES, Scope.WORKLOAD, (), "capture"),
    Node(RECORDS, Scope.WORKLOAD, (TRACES,), "datasets", code_version="5"),
    Node(PROFILE, Scope.WORKLOAD, (RECORDS,), "datasets", code_version="4"),
    Node(BASE, Scope.WORKLOAD, (RECORDS, PROFILE), "datasets", code_version="4", reads_itself=True),
    Node(TRAIN, Scope.WORKLOAD, (RECORDS, PROFILE), "datasets", code_version="3", reads_itself=True),
    Node(VALIDATION_EVAL, Scope.CELL, (TRAIN,), "evaluation", code_version="4"),
    Node(PREFIX, Scope.CELL, (TRAIN,), "context"),
    # On `train` too: without rows to learn from there is nothing to decide, and no run is started just for that.
    Node(FINETUNE_DECISION, Scope.CELL, (TRAIN, VALIDATION_EVAL), "training"),
    Node(ADAPTER, Scope.CELL, (TRAIN, FINETUNE_DECISION), "training"),
    Node(EVALS[Variant.BASE], Scope.CELL, (BASE,), "evaluation", code_version="4"),
    Node(EVALS[Variant.PREFIXED], Scope.CELL, (BASE, PREFIX), "evaluation", code_version="4"),
    Node(EVALS[Variant.CUSTOMIZED], Scope.CELL, (BASE, ADAPTER), "evaluation", code_version="4"),
    Node(TEACHER_EVAL, Scope.WORKLOAD, (BASE, PROFILE), "evaluation", code_version="2"),
    Node(COMPARISON, Scope.WORKLOAD, (BASE, PROFILE, TEACHER_EVAL, *EVALS.values()), "decision", code_version="7"),
    Node(DECISION, Scope.WORKLOAD, (COMPARISON,), "decision", code_version="5", reads_itself=True),
    Node(PUBLISHED_ADAPTER, Scope.WORKLOAD, (DECISION, ADAPTER), "distribution"),
    Node(CATALOG, Scope.ALL, (DECISION, PUBLISHED_ADAPTER), "distribution", code_version="2", reads_itself=True),
)
BY_NAME: Mapping[str, Node] = {node.name: node for node in NODES}

# Assets that one body makes, and that Dagster can therefore only run together.
MADE_TOGETHER: tuple[frozenset[str], ...] = (frozenset({BASE, TRAIN}),)

# Upstream assets that exist only where something asks for them (`resources.inputs.wanted`).
OPTIONAL_DEPS: Mapping[str, frozenset[str]] = {
    FINETUNE_DECISION: frozenset({VALIDATION_EVAL}),
    COMPARISON: frozenset({TEACHER_EVAL}),
    PUBLISHED_ADAPTER: frozenset({DECISION}),
    CATALOG: frozenset({DECISION, PUBLISHED_ADAPTER}),
}

# What a fan-in waits for to *end*, well or badly; everything else must be good.
MAY_HAVE_FAILED: Mapping[str, frozenset[str]] = {
    COMPARISON: frozenset({TEACHER_EVAL, *EVALS.values()}),
    # What a person approved is published whatever became of the cells since.
    PUBLISHED_ADAPTER: frozenset({DECISION, ADAPTER}),
    CATALOG: frozenset({DECISION, PUBLISHED_ADAPTER}),
}

# Fan-ins that wait for a cell whose run was merely killed: a judgement without it would cost a look, and the next attempt
# may well succeed.
WAITS_FOR_KILLED = frozenset({COMPARISON})


def scope_of(asset: str) -> Scope:
    """How an asset is partitioned."""
    return BY_NAME[asset].scope


def upstream_partitions(dep: str, partition: Partition, workloads: Mapping[str, tuple[str, ...]]) -> Iterator[Partition]:
    """The partitions of `dep` that `partition` of a downstream asset reads.

    `workloads` maps each workload to the candidates examined on it.
    """
    scope = BY_NAME[dep].scope
    if scope is Scope.WORKLOAD and partition.workload:
        yield Partition(partition.workload)
    elif scope is Scope.WORKLOAD:
        yield from (Partition(workload) for workload in sorted(workloads))
    elif partition.candidate:
        yield partition
    else:
        yield from (Partition(partition.workload, candidate) for candidate in workloads.get(partition.workload, ()))


def inputs_key(name: str, upstream: Mapping[str, str], settings_slice: Json) -> str:
    """The identity of one computation: asset, code version, upstream data versions, settings read (32 hex digits).

    `upstream` maps `<asset>@<partition path>` to the data version (or terminal state) found there.
    """
    content = {
        "asset": name,
        "code_version": BY_NAME[name].code_version,
        "upstream": dict(upstream),
        "settings": settings_slice,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
