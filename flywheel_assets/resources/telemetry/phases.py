"""Phases: the pieces of work that are told about, and whoever listens.

A phase is one asset body that really computed something (a reused version is none), or a judge within an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from flywheel_assets.core.graph import BY_NAME, Partition
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact


class PhaseKind(StrEnum):
    """What kind of work a phase is."""

    DATASET = "dataset"
    CONTEXT = "context"
    TRAINING = "training"
    EVALUATION = "evaluation"
    JUDGE = "judge"
    DECISION = "decision"
    DISTRIBUTION = "distribution"


class PhaseStatus(StrEnum):
    """How a phase ended; the words are MLflow's."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


_KIND_OF_GROUP: Mapping[str, PhaseKind] = {
    "datasets": PhaseKind.DATASET,
    "context": PhaseKind.CONTEXT,
    "training": PhaseKind.TRAINING,
    "evaluation": PhaseKind.EVALUATION,
    "decision": PhaseKind.DECISION,
    "distribution": PhaseKind.DISTRIBUTION,
}


def kind_of(asset: str) -> PhaseKind:
    """The kind of work that makes an asset of the graph."""
    return _KIND_OF_GROUP[BY_NAME[asset].group]


@dataclass(frozen=True, slots=True)
class Phase:
    """One piece of work that has begun.

    `name` is that of its (first) asset, or `judge`. `settings` and `inputs` are by asset: the slice of flywheel.yaml it
    reads, and the data versions it is made from (`<asset>@<partition path>` to version). `started` is in epoch seconds.
    `run_url` leads to the Dagster run. No content of any row is in here.
    """

    kind: PhaseKind
    name: str
    assets: tuple[str, ...]
    partition: Partition
    dagster_run: str
    flywheel_run: str
    run_url: str
    started: float
    settings: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a phase, such as `asking`; epoch seconds."""

    name: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers read while a phase is under way, such as the loss after `step` optimizer steps; `at` in epoch seconds."""

    step: int
    values: Mapping[str, float]
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a phase ended, and what came of it. `facts` are small results of a phase that has no artifact."""

    status: PhaseStatus
    at: float
    spans: tuple[Span, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    error: str | None = None
    facts: Json = field(default_factory=dict)


class Observer(Protocol):
    """Somebody who is told. Called from one background thread a phase, in order; whatever it raises is counted as lost.

    Every call must end by itself within seconds: requests need time limits.
    """

    def begin(self, phase: Phase) -> None:
        """A phase has begun."""
        ...

    def reading(self, phase: Phase, reading: Reading) -> None:
        """Numbers came in while it runs."""
        ...

    def end(self, phase: Phase, ended: Ended) -> None:
        """It has ended; what was buffered for it must be sent before this returns."""
        ...

    def link(self, phase: Phase) -> str | None:
        """Where a person can see the phase; asked after `begin`, must not use the network."""
        ...

    def bury(self, dagster_runs: Sequence[str]) -> None:
        """Those Dagster runs were killed: what is still open for them ends as killed."""
        ...


@dataclass(frozen=True, slots=True)
class ObserverSpec:
    """An observer by name, made in the background when it is first needed: its imports cost seconds.

    Making it is work on this machine and has a time of its own (`watch.MAKING_S`); it must not use the network. `imports`
    are the modules that cost seconds: `flywheel run` imports them once for all of its workers.
    """

    name: str
    make: Callable[[], Observer]
    imports: tuple[str, ...] = ()
