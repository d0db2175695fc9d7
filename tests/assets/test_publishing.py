"""Publishing: what is made and cannot be reported is a failure like any other, and holds nobody else up."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from flywheel_assets.assets.keys import NAME_OF, asset_key
from flywheel_assets.assets.publishing import Events, Outcome, Work, publish
from flywheel_assets.core import graph
from flywheel_assets.core.prefix import PREFIX_FILE
from flywheel_assets.partitions import cell_partitions
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.runner import Choice, RunReport, turn
from flywheel_assets.settings import Settings
from tests.assets.conftest import Bench, InlineWorkers


def nothing_to_prepend(work: Work) -> Mapping[str, Outcome]:
    (work.draft(graph.PREFIX).path / PREFIX_FILE).write_text('{"messages": [], "row_ids": []}')
    return {graph.PREFIX: Outcome(Made("nothing", {"shots": 0, "messages": 0, "row_ids": []}))}


def beyond_all_numbers(artifact: Artifact) -> Mapping[str, Any]:
    """What a description is that some odd traffic breaks."""
    raise OverflowError("cannot convert float infinity to integer")


def a_prefix_nobody_can_describe(settings: Settings) -> dg.AssetsDefinition:
    @dg.multi_asset(specs=[dg.AssetSpec(asset_key(graph.PREFIX), partitions_def=cell_partitions(settings))])
    def prefix(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        describe = {graph.PREFIX: beyond_all_numbers}
        yield from publish(context, flywheel, [graph.PREFIX], nothing_to_prepend, describe)

    return prefix


def turn_with_a_prefix_nobody_can_describe(bench: Bench) -> RunReport:
    whole = bench.defs
    others = [asset for asset in whole.assets or () if asset_key(graph.PREFIX) not in asset.keys]  # type: ignore[union-attr]
    broken = dg.Definitions(
        assets=[*others, a_prefix_nobody_can_describe(bench.flywheel.settings)],
        resources=whole.resources,
        executor=dg.in_process_executor,
        loggers=whole.loggers,
    )
    workers = InlineWorkers(bench.instance, broken)
    return turn(bench.instance, bench.flywheel, workers, Choice(), lambda message: None)


def test_what_cannot_be_described_is_a_failure_and_the_others_are_decided_without_it(bench: Bench) -> None:
    bench.ingest(120)
    report = turn_with_a_prefix_nobody_can_describe(bench)
    for candidate in ("small", "tiny"):
        assert "float infinity" in report.failures[f"prefix of tickets x {candidate}"]
    assert not [name for name in report.materialized if name.startswith("prefix of")]
    assert "decision of tickets" in report.materialized and not report.left
    # Asked for by a person it is tried again, and is in place as soon as it can be told.
    assert bench.turn().ok


def test_what_dagster_makes_in_one_run_only_is_what_the_graph_says_is_made_together(bench: Bench) -> None:
    definitions = [asset for asset in bench.defs.assets or () if isinstance(asset, dg.AssetsDefinition)]
    together = [{NAME_OF[key] for key in one.keys} for one in definitions if len(one.keys) > 1 and not one.can_subset]
    assert {frozenset(names) for names in together} == set(graph.MADE_TOGETHER)
    for names in graph.MADE_TOGETHER:
        # Planned as one: what one of them waits for, the other must wait for, too.
        assert len({(graph.BY_NAME[name].scope, graph.BY_NAME[name].deps) for name in names}) == 1
