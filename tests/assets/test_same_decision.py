"""Equal evidence gives equal decisions, wherever and whenever it was gathered."""

from __future__ import annotations

from pathlib import Path

import orjson

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.fake_platform import right
from tests.instances import local_instance


def test_two_homes_with_equal_traffic_and_answers_decide_equally(tmp_path: Path) -> None:
    """The second one answers at other speeds, later and in other Dagster runs; nothing of that is evidence."""
    one = decided_in(tmp_path / "one", {"small": 10.0, "tiny": 99.0})
    two = decided_in(tmp_path / "two", {"small": 99.0, "tiny": 10.0})
    assert one == two


def decided_in(folder: Path, latency_ms: dict[str, float]) -> dict[str, str]:
    """The data version of everything from the exam on, and the winner, of a home whose models answer at these speeds."""
    folder.mkdir()
    with local_instance(folder) as instance:
        bench = Bench(folder, instance)
        bench.platform.answers, bench.platform.latency_ms = right, latency_ms
        bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.3}]}
        bench.content["split"] = {"eval_size": 80, "min_total_records": 50}
        bench.ingest(150)
        assert bench.turn().ok
        artifacts = bench.flywheel.artifacts
        evaluated = artifacts.require(graph.EVALS[Variant.BASE], Partition("tickets", "small"))
        report = orjson.loads((evaluated.path / "report.json").read_bytes())
        assert report["latency_ms"]["p50"] == latency_ms["small"], "the homes do not differ in what they should"
        decided = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]
        assert decided["verdict"] == "promote"
        named = (graph.BASE, graph.COMPARISON, graph.DECISION)
        versions = {name: artifacts.require(name, Partition("tickets")).data_version for name in named}
        return {**versions, "evaluation": evaluated.data_version, "winner": f"{decided['candidate']} {decided['variant']}"}
