"""The UI's server: the same instance for `make ui` and plain `dagster dev`, and a cell launched the way the UI does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.demo import prepare
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import ask, dagster_dev, dev_log, ended, launch, materializations
from tests.e2e.own_traffic import write_ticket_records

WORKLOAD = "tickets"
CANDIDATE = "smollm2-135m"
CELL = f"{CANDIDATE}|{WORKLOAD}"

_ASSETS = "{ assetNodes { assetKey { path } dependencyKeys { path } groupName description owners { __typename } kinds } }"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_plain_dagster_dev_shows_the_instance_of_the_command_line(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "few.jsonl", 60, workload=WORKLOAD)))
    # No model is there, so the cells fail; what is made before them is what the UI must show.
    clone.flywheel("run", ok=False)
    for dagster_home in (False, True):
        with dagster_dev(clone, dagster_home=dagster_home) as url:
            assert len(materializations(url, ["datasets", "base"], WORKLOAD)) == 1
    nodes = {"/".join(node["assetKey"]["path"]): node for node in _nodes(clone)}
    assert {"traces", "records", "model_catalog"} <= nodes.keys()


def _nodes(clone: Clone) -> list[dict[str, Any]]:
    with dagster_dev(clone, dagster_home=True) as url:
        return ask(url, _ASSETS)["assetNodes"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_cell_launched_as_the_ui_does_trains_a_child_and_shows_its_lineage(tmp_path: Path) -> None:
    def small(content: dict[str, Any]) -> None:
        content["candidates"] = content["candidates"][:1]
        content["split"].update(eval_size=20)
        content["training"].update(max_rows=16, max_seq_length=512)

    clone = Clone.make(tmp_path / "clone", small)
    prepare(clone.home, False, lambda message: None)
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 80, workload=WORKLOAD)))
    with dagster_dev(clone, dagster_home=False) as url:
        for paths, partition in (
            ([["records"], ["workload_profile"], ["datasets", "base"], ["datasets", "train"]], WORKLOAD),
            ([["finetune_decision"], ["adapter"], ["evals", "customized"]], CELL),
        ):
            assert ended(url, launch(url, paths, partition)) == "SUCCESS", dev_log(clone)
        for path in (["adapter"], ["evals", "customized"]):
            assert len(materializations(url, path, CELL)) == 1
        report = json.loads((clone.artifact("adapter", f"{WORKLOAD}/{CANDIDATE}") / "training.json").read_text())
        assert report["steps"] == 4
        assert report["seconds"]["train"] > 0
        downstream = _downstream(ask(url, _ASSETS)["assetNodes"], "traces")
        assert {
            "records",
            "datasets/base",
            "adapter",
            "evals/customized",
            "comparison",
            "decision",
            "model_catalog",
        } <= downstream


def _downstream(nodes: list[dict[str, Any]], start: str) -> set[str]:
    edges = {"/".join(n["assetKey"]["path"]): {"/".join(d["path"]) for d in n["dependencyKeys"]} for n in nodes}
    reached = {start}
    while grown := {name for name, upstream in edges.items() if upstream & reached} - reached:
        reached |= grown
    return reached
