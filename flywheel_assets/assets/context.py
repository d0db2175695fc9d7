"""Context engineering: the prefix a candidate is shown before each request of the `prefixed` variant."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import orjson

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
                description="The context-engineering prefix: a fixed few-shot from training rows, never from eval rows. "
                "Shown beside the fine-tune, because a few examples alone may explain much of its gain.",
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
    shown = json.dumps(read_prefix(artifact.path), indent=1, ensure_ascii=False)
    return {
        "shots": artifact.summary["shots"],
        "training rows used": dg.MetadataValue.json(artifact.summary["row_ids"]),
        "messages": dg.MetadataValue.md(f"```json\n{shown[:4000]}\n```"),
    }
