"""What Dagster's UI is given to show: every asset explains itself, tables their columns, and no preview holds a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.cleaning.mask import masked_text
from flywheel_assets.core.graph import NODES, Partition
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.ingest import ingest
from tests.assets.conftest import Bench, bench, instance
from tests.e2e.own_traffic import write_ticket_records

__all__ = ["bench", "instance"]

KEY = "sk-proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2"
TABLES = {
    graph.RECORDS: set(),
    graph.BASE: {"row_id", "trace_id", "request", "response", "gold"},
    graph.TRAIN: {"row_id", "prompt", "completion"},
    graph.EVALS[Variant.BASE]: {"row_id", "reference", "prediction", "function_name_and_args"},
    graph.COMPARISON: {"function_name_and_args", "function_name_and_args_low", "errors"},
}


def page(bench: Bench, name: str) -> dict[str, Any]:
    """The metadata of the latest materialization."""
    event = bench.instance.get_latest_materialization_event(asset_key(name))
    assert event is not None and event.asset_materialization is not None, name
    return {key: value.value for key, value in event.asset_materialization.metadata.items()}


def specs(bench: Bench) -> dict[str, dg.AssetSpec]:
    return {"/".join(spec.key.path): spec for spec in bench.defs.resolve_all_asset_specs()}


def test_every_asset_says_what_it_is_who_owns_it_and_what_one_partition_of_it_is(bench: Bench) -> None:
    found = specs(bench)
    assert found.keys() == {node.name for node in NODES}
    for name, spec in found.items():
        assert spec.description and len(spec.description) > 80, name
        assert list(spec.owners) == ["team:ml-platform"] and spec.kinds and spec.group_name, name
        assert spec.tags["flywheel/scope"] == graph.scope_of(name).value, name


def test_every_check_says_what_to_do_when_it_fails(bench: Bench) -> None:
    checks = [spec for one in bench.defs.assets or () for spec in getattr(one, "check_specs", ())]
    assert len(checks) >= 12
    for check in checks:
        told = check.description or ""
        assert "If it fails:" in told or "next turn decides anew" in told, check


def test_tables_show_their_columns_and_where_each_comes_from(bench: Bench) -> None:
    bench.ingest(120)
    assert bench.turn().ok
    of_spec = specs(bench)
    for name, traced in TABLES.items():
        shown = page(bench, name)
        schema = shown.get("dagster/column_schema") or of_spec[name].metadata["dagster/column_schema"]
        assert schema.columns and all(column.description for column in schema.columns), name
        assert shown["dagster/row_count"] > 0 and not Path(shown["folder"]).is_absolute(), name
        assert name in graph.EVALS.values() or shown["dagster/uri"].startswith("file://"), name
        lineage = shown.get("dagster/column_lineage")
        assert traced <= set(lineage.deps_by_column if lineage else ()), name
        for deps in lineage.deps_by_column.values() if lineage else ():
            assert {"/".join(dep.asset_key.path) for dep in deps} <= set(graph.BY_NAME[name].deps), name


def test_column_lineage_leads_to_columns_that_are_there(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    of_spec = specs(bench)

    def columns(path: str) -> set[str]:
        schema = of_spec[path].metadata.get("dagster/column_schema") or page(bench, path)["dagster/column_schema"]
        return {column.name for column in schema.columns}

    for name, traced in TABLES.items():
        for deps in page(bench, name)["dagster/column_lineage"].deps_by_column.values() if traced else ():
            for dep in deps:
                assert dep.column_name in columns("/".join(dep.asset_key.path)), (name, dep)


@pytest.mark.parametrize("scrub", [True, False])
def test_no_preview_holds_a_secret_whatever_the_records_hold(scrub: bool, bench: Bench, instance: DagsterInstance) -> None:
    """Keys in the traffic (with scrubbing off they reach every file) and in what a candidate answers."""

    def leaking(candidate: str, variant: Variant, row: EvalRow) -> Answer:
        return Answer(f"certainly, the key is {KEY}")

    bench.platform.answers = leaking
    bench.content["cleaning"] = {"scrub": scrub}
    lines = write_ticket_records(bench.folder / "clean.jsonl", 120, workload="tickets").read_text().splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        record["request"]["messages"][0]["content"] += f" My api key is {KEY}."
        lines[number] = json.dumps(record)
    (bench.folder / "leaking.jsonl").write_text("\n".join(lines) + "\n")
    ingest([bench.folder / "leaking.jsonl"], bench.flywheel.traces)
    bench.turn()
    base = bench.flywheel.artifacts.require(graph.BASE, Partition("tickets"))
    # The preview is what is masked, and not the file.
    assert (KEY in (base.path / "eval_data.jsonl").read_text()) is not scrub
    shown = 0
    for name in specs(bench):
        for record in instance.fetch_materializations(asset_key(name), limit=10).records:
            text = str(record.asset_materialization)
            assert KEY not in text, name
            shown += "<API_KEY_1>" in text
    assert shown >= 5


def test_masking_leaves_an_ordinary_report_as_it_is(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    for name in (graph.COMPARISON, graph.DECISION):
        report = (bench.flywheel.artifacts.require(name, Partition("tickets")).path / "report.md").read_text()
        assert masked_text(report) == report
