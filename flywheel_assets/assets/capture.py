"""Capture: what the trace store holds, observed. Records themselves are read by `datasets.records`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.assets.specs import scope_tags
from flywheel_assets.core import graph
from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.trace_stores import WorkloadSummary
from flywheel_assets.settings import Settings

# An observation takes some 10 ms in a busy SQLite: so many fit twice into the 20 s that a tick is meant to take.
MAX_OBSERVATIONS = 500


def capture_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The `traces` asset."""
    kind = "sqlite" if settings.trace_store == "local" else settings.trace_store
    owned = partial(_owned, list(settings.owners))

    @dg.observable_source_asset(
        key=asset_key(graph.TRACES),
        group_name=graph.BY_NAME[graph.TRACES].group,
        partitions_def=WORKLOAD,
        description="Production traffic in the trace store: every logged request with its answer, by workload.\n\n"
        "Nothing is computed here. An observation says how many records a workload has and how far the store goes (its "
        "watermark, in ingestion order). `flywheel ingest FILE` or a source adds records; a workload is a partition as soon "
        "as it has one.",
        tags={**scope_tags(graph.TRACES), f"dagster/kind/{kind}": "", "dagster/kind/json": ""},
    )
    def traces(flywheel: dg.ResourceParam[Flywheel]) -> dg.DataVersionsByPartition:
        """Where the trace store stands, workload by workload."""
        return dg.DataVersionsByPartition({s.slug: dg.DataVersion(s.watermark) for s in flywheel.traces.workloads()})

    # `observable_source_asset` takes no owners, and every page of the catalogue should say whom to ask.
    return [create_external_asset_from_source_asset(traces).map_asset_specs(owned)]


def _owned(owners: list[str], spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.replace_attributes(owners=owners)


def observe_traces(
    instance: dg.DagsterInstance, flywheel: Flywheel, *, most: int | None = None, until: float = float("inf")
) -> Observed:
    """Register new workloads as partitions and report where each stands; the slugs whose watermark moved.

    Reports nothing that the event log already knows, so it may be called as often as anyone likes. `most` and `until` bound
    a sensor's tick; see `observe_summaries`.
    """
    return observe_summaries(instance, flywheel.traces.workloads(), most=most, until=until)


class Observed(NamedTuple):
    """The slugs whose new watermark was reported, and whether that was all there is to report."""

    moved: list[str]
    complete: bool


def observe_summaries(
    instance: dg.DagsterInstance,
    known: Sequence[WorkloadSummary],
    *,
    most: int | None = None,
    until: float = float("inf"),
) -> Observed:
    """`observe_traces` for summaries at hand; stops after `most` reports, or at `until` (monotonic), and says so."""
    summaries = {summary.slug: summary for summary in known}
    unknown = sorted(set(summaries) - set(instance.get_dynamic_partitions(WORKLOAD.name or "")))
    # sqlite takes at most about 36,000 keys at once ("too many SQL variables").
    for start in range(0, len(unknown), 10_000):
        instance.add_dynamic_partitions(WORKLOAD.name or "", unknown[start : start + 10_000])
    key = asset_key(graph.TRACES)
    seen = instance.event_log_storage.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG], asset_partitions=sorted(summaries)
    )
    moved = [slug for slug, s in summaries.items() if seen.get(slug, {}).get(DATA_VERSION_TAG) != s.watermark]
    reported: list[str] = []
    for slug in moved[:most]:
        if time.monotonic() >= until:
            break
        summary = summaries[slug]
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key=key,
                partition=slug,
                metadata={"records": summary.count, "watermark": summary.watermark, "workload_id": summary.workload_id},
                tags={DATA_VERSION_TAG: summary.watermark},
            )
        )
        reported.append(slug)
    return Observed(reported, complete=len(reported) == len(moved))
