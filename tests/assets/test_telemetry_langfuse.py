"""The whole loop, told to Langfuse over the wire: every phase has its trace, and no result depends on Langfuse."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.errors import DagsterExecutionInterruptedError

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.assets.metadata import url_of
from flywheel_assets.cli_promote import act
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Variant
from tests.assets.conftest import Bench
from tests.fake_platform import talkative
from tests.fakes import OpenAIDouble
from tests.instances import local_instance
from tests.judges import fair
from tests.langfuse_phases import patient
from tests.langfuse_server import Fault, LangfuseServer

Json = dict[str, Any]
CELL = Partition("tickets", "small")


@pytest.fixture
def langfuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        patient(monkeypatch)
        yield server


@pytest.fixture
def told(bench: Bench, langfuse: LangfuseServer) -> Bench:
    """The bench with Langfuse told, and one candidate."""
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    bench.content["telemetry"] = {"langfuse": {"enabled": True}}
    return bench


@pytest.fixture
def judge() -> Iterator[OpenAIDouble]:
    with OpenAIDouble(answer=fair, models=("big-judge",)) as running:
        yield running


def roots(server: LangfuseServer) -> dict[str, Json]:
    """The root of every phase's trace, by trace id."""
    return {
        row["traceId"]: row
        for row in server.observations.values()
        if row["environment"] == "flywheel" and row["isRootObservation"]
    }


def links(instance: DagsterInstance, asset: str, entry: str = "Langfuse") -> tuple[str, str]:
    """The link and the Dagster run of an asset's latest materialization."""
    event = instance.get_latest_materialization_event(asset_key(asset))
    assert event is not None and event.asset_materialization is not None
    return url_of(event.asset_materialization.metadata[entry]), event.run_id


def warnings(instance: DagsterInstance) -> dict[str, list[str]]:
    """What each run warned of, by run id."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs():
        messages = [entry.user_message for entry in instance.all_logs(run.run_id) if entry.level >= 30]
        found[run.run_id] = [message for message in messages if "was not told" in message]
    return found


def meanings(bench: Bench) -> dict[str, str]:
    """The data version of everything that was made, but of the catalog, which names folders of its home."""
    found = {}
    for node in (node for node in graph.NODES if node.name != graph.CATALOG):
        for partition in (Partition("tickets"), CELL):
            if partition.scope is node.scope and (ref := bench.flywheel.artifacts.published(node.name, partition)):
                found[f"{node.name} of {partition}"] = ref.data_version
    return found


def test_every_phase_of_a_turn_has_its_trace_and_links_resolve_both_ways(
    told: Bench, langfuse: LangfuseServer, judge: OpenAIDouble
) -> None:
    told.content["evaluation"] = {"tool_eval_type": "judge"}
    told.content["judge"] = {"model": judge.url, "wait_s": 0}
    told.ingest(120)
    report = told.turn()
    assert report.ok, report.failures
    traces = roots(langfuse)
    made = [name.split(" of ")[0] for name in report.materialized]
    wanted = Counter(name for name in made if name != graph.TRAIN) + Counter({"judge": 3})
    assert Counter(trace["name"] for trace in traces.values()) == wanted
    assert {trace["sessionId"] for trace in traces.values()} == {report.flywheel_run}
    for asset in {name for name in made if name != graph.TRAIN}:
        url, run = links(told.instance, asset)
        trace = traces[url.rsplit("/", 1)[1]]
        assert url == f"{langfuse.url}/project/proj1/traces/{trace['traceId']}"
        assert (trace["name"], trace["metadata"]["dagster_run"]) == (asset, run)
        assert trace["metadata"]["run_url"] == f"http://localhost:3000/runs/{run}"
    judged, _ = links(told.instance, graph.EVALS[Variant.BASE], "Langfuse (judge)")
    trace = traces[judged.rsplit("/", 1)[1]]
    evaluation, _ = links(told.instance, graph.EVALS[Variant.BASE])
    assert trace["metadata"]["evaluation_trace"] == evaluation.rsplit("/", 1)[1]
    assert set(trace["tags"]) == {"kind:judge", "workload:tickets", "candidate:small"}
    # Parts of the work, with their own times, below the root; the decision as an event.
    parts = {row["name"]: row for row in langfuse.observations.values() if row["environment"] == "flywheel"}
    assert {"deploying", "asking", "judge", "training", "begun"} <= set(parts)
    assert parts["asking"]["parentObservationId"] in langfuse.observations
    (decision,) = [row for row in langfuse.observations.values() if row["name"].startswith("decision: ")]
    assert decision["type"] == "EVENT" and json.loads(decision["output"])["verdict"] in decision["name"]
    assert not any(warnings(told.instance).values())


def test_an_evaluation_is_an_experiment_whose_rows_show_their_scores(told: Bench, langfuse: LangfuseServer) -> None:
    told.ingest(120)
    assert told.turn().ok
    status, found = langfuse.answer("GET", "/api/public/experiments", {}, b"")
    assert status == 200 and len(found["data"]) == 3
    dataset = langfuse.datasets.sets["flywheel/tickets"]
    artifact = told.flywheel.artifacts.require(graph.EVALS[Variant.CUSTOMIZED], CELL)
    (experiment,) = [e for e in found["data"] if e["name"] == f"small customized {artifact.data_version[:8]}"]
    rows = artifact.summary["scores"]["function_name"]["n"] + artifact.summary["scores"]["no_call"]["n"]
    assert (experiment["datasetId"], experiment["itemCount"]) == (dataset["id"], rows)
    assert len(langfuse.datasets.items) == rows
    _, items = langfuse.answer("GET", "/api/public/experiment-items", {"experimentId": [experiment["id"]]}, b"")
    for item in items["data"]:
        assert langfuse.datasets.items[item["experimentItemId"]]["datasetId"] == dataset["id"]
        scores = {s["name"]: s["value"] for s in langfuse.scores.values() if s.get("observationId") == item["id"]}
        assert scores.keys() & {"function_name", "no_call"} and set(scores.values()) == {1.0}
    # The means, on the evaluation's trace with their intervals, and on the experiment.
    url, _ = links(told.instance, graph.EVALS[Variant.CUSTOMIZED])
    on_trace = {s["name"]: s for s in langfuse.scores.values() if s.get("traceId") == url.rsplit("/", 1)[1]}
    mean = artifact.summary["scores"]["function_name_and_args"]
    score = on_trace["function_name_and_args"]
    assert score["value"] == mean["value"]
    assert (score["metadata"]["low"], score["metadata"]["high"]) == (mean["low"], mean["high"])
    on_experiment = {s["name"] for s in langfuse.scores.values() if s.get("datasetRunId") == experiment["id"]}
    assert on_experiment == set(artifact.summary["scores"])


def questions(bench: Bench) -> list[str]:
    """The last message of every eval row, as it stands in JSON."""
    path = bench.flywheel.artifacts.require(graph.BASE, Partition("tickets")).path
    rows = [json.loads(line) for line in (path / "eval_data.jsonl").read_text().splitlines()]
    return [json.dumps(row["request"]["messages"][-1]["content"])[1:-1] for row in rows]


def test_without_rows_no_content_leaves_and_with_rows_it_does(told: Bench, langfuse: LangfuseServer) -> None:
    told.ingest(120)
    assert told.turn().ok
    sent = b"".join(langfuse.bodies)
    assert sent and not any(text.encode() in sent for text in questions(told))
    assert b"refund_order" not in sent and b"rather write Python" not in sent
    told.content["telemetry"] = {"langfuse": {"enabled": True, "rows": True}}
    langfuse.bodies.clear()
    told.ingest(60, seed=8)
    assert told.turn().ok
    sent = b"".join(langfuse.bodies)
    assert [text for text in questions(told) if text.encode() not in sent] == []
    assert b"rather write Python" in sent


def test_a_second_turn_sends_nothing_and_new_records_send_new_rows_only(told: Bench, langfuse: LangfuseServer) -> None:
    told.content["split"] = {"eval_size": 400, "min_total_records": 50}
    told.ingest(120)
    assert told.turn().ok
    before, known = len(langfuse.calls), set(langfuse.datasets.items)
    assert told.turn().materialized == []
    assert len(langfuse.calls) == before
    langfuse.calls.clear()
    told.ingest(60, seed=8)
    assert told.turn().ok
    new = set(langfuse.datasets.items) - known
    assert new and langfuse.calls.count("/api/public/dataset-items") == len(new)


def test_a_failed_and_a_cancelled_phase_end_as_such(told: Bench, langfuse: LangfuseServer) -> None:
    told.platform.train_error["small"] = RuntimeError("out of memory at step 3")
    told.ingest(120)
    assert not told.turn().ok
    (adapter,) = [trace for trace in roots(langfuse).values() if trace["name"] == graph.ADAPTER]
    assert (adapter["level"], adapter["statusMessage"]) == ("ERROR", "out of memory at step 3")
    assert json.loads(adapter["output"])["status"] == "FAILED"
    # As Dagster tells a body that its run is cancelled.
    told.platform.train_error["small"] = DagsterExecutionInterruptedError()  # type: ignore[assignment]
    with suppress(DagsterExecutionInterruptedError, KeyboardInterrupt):
        told.turn()
    adapters = [trace for trace in roots(langfuse).values() if trace["name"] == graph.ADAPTER]
    assert sorted(json.loads(trace["output"])["status"] for trace in adapters) == ["FAILED", "KILLED"]


def happened(server: LangfuseServer) -> list[tuple[str, Json]]:
    """The events of the catalog's traces, oldest first, with what they say."""
    of = {trace["traceId"] for trace in roots(server).values() if trace["name"] == graph.CATALOG}
    events = [row for row in server.observations.values() if row["traceId"] in of and row["type"] == "EVENT"]
    events.sort(key=lambda row: row["startTime"])
    return [(row["name"], json.loads(row["output"])) for row in events if row["name"] != "begun"]


def test_what_a_person_does_with_a_decision_is_an_event_without_the_name(told: Bench, langfuse: LangfuseServer) -> None:
    told.platform.answers = talkative
    told.content["split"] = {"eval_size": 100, "min_total_records": 50}
    told.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.2}]}
    told.ingest(300)
    assert told.turn().ok
    (first,) = happened(langfuse)
    assert first[0] == "decided: tickets" and first[1]["serves_now"] == "the teacher"
    langfuse.bodies.clear()
    for action in ("approve", "rollback"):
        act(told.instance, told.flywheel.settings, action, "tickets", who="Ada Lovelace", why="it was a full moon")
    names, said = zip(*happened(langfuse), strict=True)
    assert names[1:] == ("approve: tickets", "rollback: tickets")
    assert (said[1]["serves_now"]["candidate"], said[2]["serves_now"]) == ("small", "the teacher")
    decision = told.flywheel.artifacts.require(graph.DECISION, Partition("tickets"))
    assert said[1]["decision"] == f"decision/tickets/{decision.version}"
    sent = b"".join(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in langfuse.bodies)
    assert sent and b"Lovelace" not in sent and b"full moon" not in sent


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What a turn makes that tells nobody, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("quiet")
    with local_instance(folder) as instance:
        bench = Bench(folder, instance)
        bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
        bench.ingest(120)
        began = time.monotonic()
        assert bench.turn().ok
        return meanings(bench), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["nothing", "down", "hanging", "500s"])
def test_whatever_langfuse_does_the_results_are_the_same_and_a_run_warns_once(
    trouble: str,
    quiet: tuple[dict[str, str], float],
    told: Bench,
    langfuse: LangfuseServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted, usual = quiet
    if trouble == "down":
        langfuse.stop()
    elif trouble == "hanging":
        patient(monkeypatch, call_s=2.0)
        langfuse.faults.extend([Fault(delay_s=60)] * 100)
    elif trouble == "500s":
        langfuse.faults.extend([Fault(status=500)] * 10_000)
    told.ingest(120)
    began = time.monotonic()
    report = told.turn()
    took = time.monotonic() - began
    assert report.ok, report.failures
    assert meanings(told) == wanted
    found = [message for messages in warnings(told.instance).values() for message in messages]
    with capsys.disabled():
        print(f"\n{trouble}: {took:.1f} s, without telemetry {usual:.1f} s; {len(found)} warnings, such as {found[:1]}")
    assert {len(messages) for messages in warnings(told.instance).values()} == {0 if trouble == "nothing" else 1}
    for message in found:
        assert re.search(r"^Langfuse was not told \d+ messages? of this run \(.+\)\. Results are not affected\.$", message)
