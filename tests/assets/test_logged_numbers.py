"""Numbers of the traffic on their way to the reports: what the teacher took, what its cache saved, what people disliked."""

from __future__ import annotations

import csv
from typing import Any

import orjson
import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.e2e.own_traffic import write_ticket_records
from tests.fake_platform import right

WORKLOAD = Partition("tickets")
FULL_PRICE = (
    "85% of the teacher's prompt tokens were cached; prices.big-cached has no cached_prompt, so they are counted at the "
    "full price."
)


def log(bench: Bench, n: int = 120, **changes: Any) -> None:
    """Ticket records of a teacher with a prompt cache, each with what `changes` adds to it."""
    path = write_ticket_records(bench.folder / "tickets.jsonl", n, workload="tickets", seed=7)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for number, line in enumerate(lines):
        usage = {"prompt_tokens": 1200, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 1024}}
        line["response"] |= {"model": "big-cached", "usage": usage}
        line |= {"latency_ms": 500.0 + number, **changes}
        line.pop("cost_usd", None)
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    ingest([path], bench.flywheel.traces)


def compared(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(
        (bench.flywheel.artifacts.require(graph.COMPARISON, WORKLOAD).path / "comparison.json").read_bytes()
    )
    return found


def test_logged_latency_is_in_the_leaderboard_and_in_the_status(bench: Bench) -> None:
    bench.platform.answers = right
    log(bench)
    assert bench.turn().ok
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, WORKLOAD)
    reference = next(csv.DictReader((comparison.path / "leaderboard.csv").read_text().splitlines()))
    assert 500 <= float(reference["latency_p50_ms"]) < float(reference["latency_p95_ms"]) < 620
    found = status_of(bench.flywheel)["workloads"]["tickets"]["teacher_logged_latency_ms"]
    assert found == compared(bench)["reference_latency_ms"]
    for report in ("report.md", "report.html"):
        decision = bench.flywheel.artifacts.require(graph.DECISION, WORKLOAD)
        assert "as logged in production" in (decision.path / report).read_text()


def test_cached_tokens_at_the_full_price_are_said_and_their_own_price_asks_no_model(bench: Bench) -> None:
    bench.platform.answers = right
    bench.content["prices"] = {"big-cached": {"prompt": 2.0, "completion": 10.0}}
    log(bench)
    assert bench.turn().ok
    asked = bench.platform.questions
    full = compared(bench)["reference_cost_per_1k_usd"]
    assert full == pytest.approx(1000 * (1200 * 2 + 30 * 10) / 1e6)
    assert compared(bench)["notes"] == [FULL_PRICE]
    decision = bench.flywheel.artifacts.require(graph.DECISION, WORKLOAD).path
    assert FULL_PRICE in (decision / "report.md").read_text()
    bench.content["prices"] = {"big-cached": {"prompt": 2.0, "completion": 10.0, "cached_prompt": 0.5}}
    report = bench.turn()
    assert report.ok and bench.platform.questions == asked
    assert "comparison of tickets" in report.materialized
    assert not [name for name in report.materialized if name.startswith(("evals/", "adapter", "datasets/"))]
    assert compared(bench)["reference_cost_per_1k_usd"] == pytest.approx(1000 * (176 * 2 + 1024 * 0.5 + 300) / 1e6)
    assert compared(bench)["notes"] == []


def test_disliked_reference_answers_reach_the_decision(bench: Bench) -> None:
    bench.platform.answers = right
    log(bench, feedback={"score": 0})
    assert bench.turn().ok
    decision = bench.flywheel.artifacts.require(graph.DECISION, WORKLOAD)
    evidence = orjson.loads((decision.path / "decision.json").read_bytes())["evidence"]
    assert evidence["condemned_gold"] == {"rows": evidence["rows"], "of": evidence["rows"]}
    assert any("100% of the eval rows' reference answers" in reason for reason in decision.summary["reasons"])
