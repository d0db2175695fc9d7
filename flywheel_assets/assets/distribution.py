"""Distribution: what applications read to know which model serves a workload."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.metadata import bullet_table
from flywheel_assets.assets.publishing import Events, Outcome, Work, publish
from flywheel_assets.assets.specs import spec
from flywheel_assets.core import graph
from flywheel_assets.core.catalog import CatalogEntry, update_catalog
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.settings import Settings

CATALOG_FILE = "model_selection.json"
_SHOWN_CHANGES = 30


def distribution_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`model_catalog`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.CATALOG,
                description="`model_selection.json`: per workload what was decided, for which candidate, variant and "
                "adapter, with its history.",
                kinds=["json"],
            )
        ]
    )
    def model_catalog(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.CATALOG], _update, {graph.CATALOG: _describe})

    return [model_catalog]


def _update(work: Work) -> Mapping[str, Outcome]:
    """What every current decision says, over the catalog as it was: history is only ever appended to."""
    flywheel = work.flywheel
    previous = work.previous(graph.CATALOG)
    before = None if previous is None else read_catalog(previous)
    entries = [entry for slug in flywheel.workloads() if (entry := _entry(flywheel, slug)) is not None]
    catalog = update_catalog(before, entries, datetime.now(UTC).isoformat(timespec="seconds"))
    encoded = orjson.dumps(catalog, option=orjson.OPT_INDENT_2)
    (work.draft(graph.CATALOG).path / CATALOG_FILE).write_bytes(encoded)
    timeless = [{**entry, "time": None} for entry in catalog["workloads"].values()]
    summary = {"workloads": len(catalog["workloads"]), "changes": len(catalog["history"])}
    return {graph.CATALOG: Outcome(Made(hashlib.sha256(orjson.dumps(timeless)).hexdigest()[:32], summary))}


def read_catalog(artifact: Artifact) -> Json:
    """`model_selection.json` of a published catalog."""
    content: Json = orjson.loads((artifact.path / CATALOG_FILE).read_bytes())
    return content


def _entry(flywheel: Flywheel, slug: str) -> CatalogEntry | None:
    """The catalog's line for one workload; None while nothing is decided."""
    decision = flywheel.artifacts.current(graph.DECISION, Partition(slug))
    comparison = flywheel.artifacts.current(graph.COMPARISON, Partition(slug))
    if decision is None or comparison is None:
        return None
    summary = decision.summary
    promoted = summary["candidate"] and Partition(slug, summary["candidate"])
    report = promoted and flywheel.artifacts.current(graph.EVALS[Variant(summary["variant"])], promoted)
    adapter = promoted and flywheel.artifacts.current(graph.ADAPTER, promoted)
    return CatalogEntry(
        workload=slug,
        workload_id=flywheel.traces.summary(slug).workload_id,
        verdict=summary["verdict"],
        approved=summary["approved"],
        candidate=summary["candidate"],
        variant=summary["variant"],
        adapter_version=adapter.version if adapter and summary["variant"] == Variant.CUSTOMIZED else None,
        metrics=report.summary["scores"] if report else {},
        dataset_version=comparison.summary["dataset"],
        evidence=f"{graph.DECISION}/{slug}/{decision.version}",
    )


def _describe(artifact: Artifact) -> Mapping[str, Any]:
    catalog = read_catalog(artifact)
    columns = ("workload", "verdict", "candidate", "variant", "approved", "dataset_version", "time")
    changes = [[change["time"], change["workload"], change["change"]] for change in reversed(catalog["history"])]
    return {
        "workloads": artifact.summary["workloads"],
        "selection": bullet_table(columns, [[entry[c] for c in columns] for entry in catalog["workloads"].values()]),
        "history": bullet_table(["time", "workload", "change"], changes[:_SHOWN_CHANGES]),
    }
