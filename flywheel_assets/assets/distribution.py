"""Distribution: what applications read to know which model serves a workload, and where a person says so."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dagster as dg
import orjson
from pydantic import Field

from flywheel_assets.assets.metadata import IN_SHORT, bullet_table
from flywheel_assets.assets.publication import published_for
from flywheel_assets.assets.publishing import Events, Outcome, Work, publish
from flywheel_assets.assets.specs import spec
from flywheel_assets.core import graph
from flywheel_assets.core.catalog import CATALOG_FILE, CatalogEntry, update_catalog
from flywheel_assets.core.graph import EVERYTHING, Partition
from flywheel_assets.core.promotion import TEACHER, Act, Action, PromotionRefused, is_approved, serving
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.expiry import expires_at
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.json_files import write_json
from flywheel_assets.resources.promotions import promote
from flywheel_assets.resources.provenance import adapter_of
from flywheel_assets.resources.runs import partition_tags
from flywheel_assets.resources.seals import Tampered
from flywheel_assets.seals import require_untouched_evidence
from flywheel_assets.settings import Settings

# The name under which the launchpad configures it.
CATALOG_OP = "model_catalog"
_SHOWN_CHANGES = 30


class PersonDoes(Enum):
    """`core.promotion.Action`, and nothing, as the launchpad offers them."""

    nothing = "nothing"
    approve = "approve"
    reject = "reject"
    rollback = "rollback"


class Promotion(dg.Config):
    """What a person does with the decision of a workload; with `nothing` the catalog is just brought up to date."""

    action: PersonDoes = Field(
        PersonDoes.nothing,
        description="`approve` lets the decision's winner serve, `reject` says that it shall not, `rollback` takes back "
        "what serves now; `nothing` brings the catalog up to date.",
    )
    workload: str = Field("", description="The workload's slug, as the partitions of `decision` name it.")
    who: str = Field("", description="Your name: it is kept with the act.")
    why: str = Field("", description="What convinced you: it is kept with the act.")


def distribution_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`model_catalog`."""

    @dg.multi_asset(
        name=CATALOG_OP,
        specs=[
            spec(
                settings,
                graph.CATALOG,
                description="`model_selection.json`, which applications read: for each workload which model serves it, what "
                "was decided and what a person said to that, with the history.\n\nTo approve, reject or roll back: the job "
                "`promote`.",
                kinds=["json"],
            )
        ],
    )
    def model_catalog(context: dg.AssetExecutionContext, config: Promotion, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        _record(context, config, flywheel)
        yield from publish(context, flywheel, [graph.CATALOG], _update, {graph.CATALOG: _describe})
        _place(flywheel)

    return [model_catalog]


def _record(context: dg.AssetExecutionContext, config: Promotion, flywheel: Flywheel) -> None:
    if config.action is PersonDoes.nothing:
        return
    context.instance.add_run_tags(context.run_id, partition_tags(Partition(config.workload)))
    try:
        require_untouched_evidence(context.instance, flywheel, config.workload, Action(config.action.value))
        act = promote(
            flywheel,
            config.workload,
            Action(config.action.value),
            who=config.who,
            why=config.why,
            # A run that is executed again after a crash tells the same act again.
            act_id=context.run.root_run_id or context.run_id,
        )
    except (PromotionRefused, Tampered) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    context.log.info(f"{act.who}: {act.action} {act.model} for '{act.workload}' ({act.why})")


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
    changes = len(catalog["history"])
    new = changes - (0 if before is None else len(before["history"]))
    summary = {"workloads": len(catalog["workloads"]), "changes": changes, "new_changes": new}
    return {graph.CATALOG: Outcome(Made(hashlib.sha256(orjson.dumps(timeless)).hexdigest()[:32], summary))}


def _place(flywheel: Flywheel) -> None:
    """The current catalog at the one place that applications read, whatever its version; replaced whole."""
    # Under the lock, so that of two runs the later catalog stays.
    with flywheel.artifacts.lock(graph.CATALOG, EVERYTHING):
        if (current := flywheel.artifacts.current(graph.CATALOG, EVERYTHING)) is not None:
            write_json(flywheel.settings.home / CATALOG_FILE, read_catalog(current))


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
    adapter = adapter_of(flywheel.artifacts, decision)
    acts = flywheel.promotions.acts(slug)
    served = serving(acts)
    return CatalogEntry(
        workload=slug,
        workload_id=flywheel.traces.summary(slug).workload_id,
        verdict=summary["verdict"],
        approved=is_approved(acts, decision.version),
        candidate=summary["candidate"],
        variant=summary["variant"],
        adapter_version=adapter.version if adapter else None,
        metrics=report.summary["scores"] if report else {},
        dataset_version=comparison.summary["dataset"],
        evidence=f"{graph.DECISION}/{slug}/{decision.version}",
        serving=None if served is None else _serving(flywheel, served),
        expires=expires_at(flywheel, decision),
        last_act={key: acts[-1].to_json()[key] for key in ("action", "who", "why", "time", "decision")} if acts else None,
    )


def _serving(flywheel: Flywheel, act: Act) -> Json:
    model = {key: getattr(act, key) for key in ("candidate", "variant", "adapter_version", "decision")}
    published = published_for(flywheel, act)
    hub = {} if published is None else {"hub": {key: published.summary[key] for key in ("repository", "revision", "tag")}}
    return {**model, **hub, "approved_by": act.who, "since": act.time}


def _describe(artifact: Artifact) -> Mapping[str, Any]:
    catalog = read_catalog(artifact)
    # Few and short: Dagster cuts off what is wider than its column.
    columns = ("workload", "verdict", "candidate", "variant")
    entries = catalog["workloads"].values()
    changes = [[_minute(change["time"]), change["workload"], change["change"]] for change in reversed(catalog["history"])]
    serving_now = [f"{entry['workload']}: {_who_serves(entry.get('serving'))}" for entry in entries]
    return {
        IN_SHORT: f"serves now: {'; '.join(serving_now) or 'nothing is decided yet'}",
        "workloads": artifact.summary["workloads"],
        "selection": bullet_table(
            ("serves now", *columns, "approved", "decided (UTC)"),
            [
                [
                    _who_serves(entry.get("serving")),
                    *(entry[column] for column in columns),
                    "yes" if entry["approved"] else "no",
                    _minute(entry["time"]),
                ]
                for entry in entries
            ],
        ),
        "history": bullet_table(["time (UTC)", "workload", "change"], changes[:_SHOWN_CHANGES]),
    }


def _minute(time: str) -> str:
    """An ISO 8601 time to the minute."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")


def _who_serves(served: Json | None) -> str:
    return TEACHER if served is None else f"{served['candidate']} ({served['variant']})"
