"""The flywheel at one home: its settings, its trace store and its artifacts, and its state as the planner sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from flywheel_assets.core.gate_findings import Model
from flywheel_assets.core.gates import LATENCY, Against
from flywheel_assets.core.graph import (
    ADAPTER,
    CATALOG,
    COMPARISON,
    DECISION,
    NODES,
    PUBLISHED_ADAPTER,
    RECORDS,
    Partition,
    Scope,
)
from flywheel_assets.core.planner import Failure, FlywheelState, Published, Target
from flywheel_assets.core.promotion import serving
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.again import AGAIN, AgainMarks
from flywheel_assets.resources.artifacts import ArtifactMissing, ArtifactStore
from flywheel_assets.resources.inputs import publication_slice, settings_slice, wanted
from flywheel_assets.resources.looks import LookLog
from flywheel_assets.resources.promotions import PromotionLog
from flywheel_assets.resources.telemetry import SILENT, Telemetry, telemetry_of
from flywheel_assets.resources.trace_stores import LocalTraceStore, TraceStore, WorkloadSummary
from flywheel_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class Flywheel:
    """What every asset body, sensor and command needs of the flywheel it works for.

    `assumed_again`: marks by target that hold for this object only, so that a plan can show what they would do.
    """

    settings: Settings
    traces: TraceStore
    artifacts: ArtifactStore
    telemetry: Telemetry = SILENT
    assumed_again: Mapping[Target, str] = field(default_factory=dict)

    @classmethod
    def at_home(cls, settings: Settings) -> Flywheel:
        """The flywheel that lives in `settings.home`."""
        return cls(settings, _trace_store(settings), ArtifactStore(settings.home / "artifacts"), telemetry_of(settings))

    def settings_slice(self, asset: str, partition: Partition) -> Json:
        """What a partition of an asset reads from the settings, and some of them from what people approved or want again."""
        read = self._read(asset, partition)
        mark = self.again.of(asset, partition)
        asked = {}
        # Measured anew where something was asked anew, though the answers may be the same.
        if asset == COMPARISON or (asset == DECISION and any(gate.get(LATENCY) is not None for gate in read["gates"])):
            candidates = (candidate.id for candidate in self.settings.candidates_of(partition.workload))
            asked = self.again.of_evaluations(partition.workload, candidates)
        return {**read, **({} if mark is None else {AGAIN: mark}), **({"asked_again": asked} if asked else {})}

    def _read(self, asset: str, partition: Partition) -> Json:
        read = settings_slice(self.settings, asset, partition)
        if asset == CATALOG:
            return {**read, "promotions": self.promotions.digests()}
        if asset == PUBLISHED_ADAPTER:
            acts = self.promotions.acts(partition.workload)
            served = serving(acts)
            return {
                **publication_slice(self.settings, partition.workload, None if served is None else served.candidate),
                "approved": None if served is None else [served.decision, served.candidate, served.variant],
                # A rollback brings back what was published before: `main` has to follow, and so it is looked at again.
                "acts": len(acts),
            }
        if asset == DECISION:
            compared = self.artifacts.published(COMPARISON, partition)
            looked_at = self.looks.digest(partition.workload, compared.data_version if compared else None)
            against_it = any(gate["against"] == Against.INCUMBENT for gate in read["gates"])
            incumbent = {"incumbent": self.incumbent(partition.workload)} if against_it else {}
            return {**read, "looks_elsewhere": looked_at, **incumbent}
        return read

    def incumbent(self, workload: str) -> Model | None:
        """The model that serves a workload by a person's approval, as comparisons name it; None is the teacher."""
        served = serving(self.promotions.acts(workload))
        if served is None:
            return None
        adapter = served.adapter_version
        if adapter is not None:
            # One that is gone here serves from elsewhere, and no comparison can hold it: its version names it well enough.
            with suppress(ArtifactMissing):
                adapter = self.artifacts.version(ADAPTER, Partition(workload, served.candidate), adapter).data_version
        return served.candidate, Variant(served.variant), adapter

    @property
    def again(self) -> AgainMarks:
        """What people asked to have made again."""
        return AgainMarks(self.settings.home, self.assumed_again)

    @property
    def promotions(self) -> PromotionLog:
        """What people approved, rejected and rolled back."""
        return PromotionLog(self.settings.home)

    @property
    def looks(self) -> LookLog:
        """What was looked at, and what that spent of alpha."""
        return LookLog(self.settings.home, self.artifacts)

    def watermark_read(self, workload: str) -> str | None:
        """How far the workload's current records go; None where there are none yet."""
        records = self.artifacts.current(RECORDS, Partition(workload))
        return None if records is None else str(records.summary["watermark"])

    def workloads(self, only: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Every workload of the trace store (or those named), with the candidates examined on it."""
        known = [summary.slug for summary in self.traces.workloads()] if only is None else list(only)
        return {slug: tuple(c.id for c in self.settings.candidates_of(slug)) for slug in sorted(known)}

    def state(
        self,
        only: Iterable[str] | None = None,
        announced: Mapping[Target, str] | None = None,
        summaries: Sequence[WorkloadSummary] | None = None,
        as_read: bool = False,
    ) -> FlywheelState:
        """What the planner looks at. `announced` maps targets to the data version of their latest materialization;
        None takes every event for granted (a body does: it is about to emit its own). `summaries` are the store's
        workloads, where they are at hand. `as_read` shows each workload as its records were read last, as if nothing had
        come since."""
        # Asked for once: in some stores this is a request over the network.
        summaries = self.traces.workloads() if summaries is None else summaries
        workloads = self.workloads([summary.slug for summary in summaries] if only is None else only)
        watermarks = {s.slug: s.watermark for s in summaries if s.count and s.slug in workloads}
        if as_read:
            watermarks = {slug: self.watermark_read(slug) or watermark for slug, watermark in watermarks.items()}
        published: dict[Target, Published] = {}
        failures: dict[Target, Failure] = {}
        again: set[Target] = set()
        for target in _targets(workloads):
            if (version := self.artifacts.published(*target)) is not None:
                heard = announced is None or announced.get(target) == version.data_version
                published[target] = version if heard else _unannounced(version)
            if (failure := self.artifacts.failure(*target)) is not None:
                failures[target] = failure
            if self.again.of(*target) is not None and self.again.is_pending(*target, self.artifacts.current(*target)):
                again.add(target)
        return FlywheelState(
            workloads=workloads,
            watermarks=watermarks,
            settings_slice=self.settings_slice,
            wanted=partial(wanted, self.settings),
            published=published,
            failures=failures,
            again=frozenset(again),
        )


def _trace_store(settings: Settings) -> TraceStore:
    if settings.trace_store == "local":
        return LocalTraceStore(settings.home / "traces.sqlite")
    # Imported here: whoever keeps traces in a file needs none of it.
    from flywheel_assets.resources.trace_stores.elasticsearch import open_store

    return open_store(settings.elasticsearch)


def _unannounced(version: Published) -> Published:
    return Published(
        version.inputs_key, version.data_version, version.state, version.reason, version.blocked, announced=False
    )


def _targets(workloads: Mapping[str, tuple[str, ...]]) -> Iterable[Target]:
    for node in NODES:
        if node.scope is Scope.ALL:
            yield node.name, Partition()
            continue
        for workload, candidates in workloads.items():
            if node.scope is Scope.WORKLOAD:
                yield node.name, Partition(workload)
            else:
                yield from ((node.name, Partition(workload, candidate)) for candidate in candidates)
