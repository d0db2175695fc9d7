"""The teacher asked once more: a ceiling beside the others, where its endpoint is known."""

from __future__ import annotations

import orjson

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.fake_platform import right

WORKLOAD = Partition("tickets")
ENDPOINT = {"model": "http://127.0.0.1:9/v1", "model_name": "big-model"}


def forgetful(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """A teacher that answers every fifth row differently today."""
    return Answer("hm") if candidate == "teacher" and int(row.row_id, 16) % 5 == 0 else right(candidate, variant, row)


def test_without_an_endpoint_nobody_asks_the_teacher(bench: Bench) -> None:
    bench.ingest(120)
    assert bench.turn().ok
    assert bench.flywheel.artifacts.current(graph.TEACHER_EVAL, WORKLOAD) is None
    assert status_of(bench.flywheel)["workloads"]["tickets"]["teacher"] is None


def test_the_teacher_s_agreement_with_itself_stands_beside_the_candidates(bench: Bench) -> None:
    bench.platform.answers = forgetful
    bench.content["teacher"] = ENDPOINT
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.3, "against": "teacher"}]}
    bench.ingest(200)
    assert bench.turn().ok
    assert bench.platform.samples["teacher"] == {1}
    assert bench.platform.samples["small"] == {0}
    found = status_of(bench.flywheel)["workloads"]["tickets"]
    assert found["teacher"]["state"] == "ok"
    assert 0 < found["teacher"]["scores"]["function_name"]["value"] < 1
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, WORKLOAD)
    ceiling = orjson.loads((comparison.path / "comparison.json").read_bytes())["ceiling"]
    assert ceiling["function_name"]["value"] == found["teacher"]["scores"]["function_name"]["value"]
    assert "asked once more" in (comparison.path / "report.md").read_text()


def test_a_teacher_that_cannot_be_reached_leaves_the_candidates_alone(bench: Bench) -> None:
    def unreachable(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
        return None if candidate == "teacher" else right(candidate, variant, row)

    bench.platform.answers = unreachable
    bench.content["teacher"] = ENDPOINT
    bench.ingest(120)
    report = bench.turn()
    assert list(report.failures) == ["evals/teacher of tickets"]
    status = status_of(bench.flywheel)["workloads"]["tickets"]
    assert status["teacher"]["state"] == "failed" and status["decision"] is not None


def test_taking_the_endpoint_out_compares_without_the_teacher(bench: Bench) -> None:
    bench.platform.answers = right
    bench.content["teacher"] = ENDPOINT
    bench.ingest(120)
    bench.turn()
    del bench.content["teacher"]
    asked = bench.platform.questions
    assert bench.turn().ok
    assert bench.platform.questions == asked
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, WORKLOAD)
    assert orjson.loads((comparison.path / "comparison.json").read_bytes())["ceiling"] == {}
