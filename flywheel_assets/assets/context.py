"""Context engineering: the prefix a candidate is shown before each request of the `prefixed` variant."""

import hashlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.metadata import IN_SHORT, code_list
from flywheel_assets.assets.previews import message_table
from flywheel_assets.assets.publishing import Events, Outcome, Work, publish
from flywheel_assets.assets.specs import spec
from flywheel_assets.core import graph
from flywheel_assets.core.datasets import iter_training_rows
from flywheel_assets.core.prefix import PREFIX_FILE, few_shot_prefix, read_prefix
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.settings import Settings


def context_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The `prefix` asset."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.PREFIX,
                description="The context-engineering prefix: a few training rows, shown before each request of the prefixed "
                "variant; never eval rows.\n\nIt stands beside the fine-tune in every comparison, because a few examples "
                "alone may explain much of its gain.",
                kinds=["json"],
            )
        ]
    )
    def prefix(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.PREFIX], _choose_prefix, {graph.PREFIX: _describe})

    return [prefix]


def _choose_prefix(work: Work) -> Mapping[str, Outcome]:
    settings = work.flywheel.settings.prefix_for(work.partition.workload)
    split = work.flywheel.settings.split_for(work.partition.workload)
    train = work.upstream(graph.TRAIN)
    chosen = few_shot_prefix(
        iter_training_rows(train.path, "train"), shots=settings.shots, max_chars=settings.max_chars, seed=split.random_seed
    )
    content = {"messages": list(chosen.messages), "row_ids": list(chosen.row_ids)}
    encoded = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    (work.draft(graph.PREFIX).path / PREFIX_FILE).write_bytes(encoded)
    summary = {"shots": len(chosen.row_ids), "messages": len(chosen.messages), "row_ids": list(chosen.row_ids)}
    return {graph.PREFIX: Outcome(Made(data_version=hashlib.sha256(encoded).hexdigest()[:32], summary=summary))}


def _describe(artifact: Artifact) -> Mapping[str, Any]:
    return {
        IN_SHORT: f"{artifact.summary['shots']} training rows are shown before each request of the prefixed variant",
        "shots": artifact.summary["shots"],
        "messages": message_table(read_prefix(artifact.path)),
        "training rows used": code_list(artifact.summary["row_ids"]),
    }
