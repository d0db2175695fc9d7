"""What Langfuse gets of phases, over the wire."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langfuse import Langfuse
from langfuse._client.attributes import LangfuseOtelSpanAttributes

from flywheel_assets.core import graph
from flywheel_assets.core.rows import EvalRow, Prediction
from flywheel_assets.resources.telemetry import Ended, Phase, PhaseKind, PhaseStatus, Reading, Span
from flywheel_assets.resources.telemetry.langfuse import exam, story
from flywheel_assets.resources.telemetry.langfuse.health import examine_langfuse
from flywheel_assets.resources.telemetry.langfuse.observations import attributes_of
from flywheel_assets.resources.telemetry.langfuse.observer import LangfuseObserver, langfuse_observer
from flywheel_assets.resources.telemetry.langfuse.service import NotTold
from flywheel_assets.resources.telemetry.observers import telemetry_of
from tests.langfuse_phases import (
    CELL,
    DATASET,
    EVALUATION,
    finished,
    folder_store,
    patient,
    phase,
    published,
    published_base,
    published_evaluation,
    rows,
    settings,
)
from tests.langfuse_rows import reading
from tests.langfuse_server import SECRET_KEY, Fault, LangfuseServer

Json = dict[str, Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        patient(monkeypatch)
        yield server


def observer(home: Path, **langfuse: Any) -> LangfuseObserver:
    """An observer of its own, as every process has one."""
    return langfuse_observer(settings(home, **langfuse))


def tell(told: LangfuseObserver, about: Phase, end: Ended) -> str:
    """Tell a whole phase; its trace id."""
    told.begin(about)
    told.end(about, end)
    return str(told.link(about)).rsplit("/", 1)[1]


def of_trace(server: LangfuseServer, trace_id: str) -> dict[str, Json]:
    return {row["name"]: row for row in server.observations.values() if row["traceId"] == trace_id}


def exam_of(home: Path, number: int, right: int = 3) -> tuple[list[EvalRow], Ended, Ended]:
    """Eval rows, the end of the phase that built them, and that of an evaluation on them."""
    examined, store = rows(number), folder_store(home)
    return examined, finished(published_base(store, examined)), finished(published_evaluation(store, examined, right))


def experiment_rows(server: LangfuseServer) -> list[Json]:
    return [row for row in server.observations.values() if row["environment"] == "sdk-experiment"]


def test_a_phase_becomes_a_trace_with_its_parts_scores_and_the_way_back(server: LangfuseServer, tmp_path: Path) -> None:
    _, _, end = exam_of(tmp_path, 10)
    told = observer(tmp_path, max_rows=0)
    trace_id = tell(told, EVALUATION, end)
    assert trace_id == Langfuse.create_trace_id(seed="run-1/evals/base/evals/base")
    found = of_trace(server, trace_id)
    root, asking = found["evals/base"], found["asking"]
    assert (root["type"], root["sessionId"], root["environment"]) == ("EVALUATOR", "turn-1", "flywheel")
    assert root["tags"] == ["kind:evaluation", "workload:tickets", "candidate:small"]
    assert root["metadata"]["run_url"] == "http://dagster:3000/runs/run-1"
    assert root["metadata"]["made_from"] == {"a@b": "v1"}
    assert root["metadata"]["artifacts"]["evals/base"]["version"] == end.artifacts[0].version
    assert asking["parentObservationId"] == found["begun"]["parentObservationId"] == root["id"]
    assert asking["latency"] == pytest.approx(0.8, abs=0.01)
    assert json.loads(root["output"])["evals/base"]["scores"]["exact_match"]["n"] == 10
    scores = {score["name"]: score for score in server.scores.values()}
    assert {score["traceId"] for score in scores.values()} == {trace_id}
    assert scores["exact_match"]["value"] == pytest.approx(0.3) and "95% interval" in scores["exact_match"]["comment"]
    assert experiment_rows(server) == []


def test_what_is_told_twice_is_one_thing(server: LangfuseServer, tmp_path: Path) -> None:
    _, built, end = exam_of(tmp_path, 5)
    told = observer(tmp_path)
    for _ in range(2):
        tell(told, DATASET, built)
        tell(told, EVALUATION, end)
    assert len(experiment_rows(server)) == 5
    assert len(server.datasets.items) == 5
    names = [(score["name"], score.get("observationId") or score.get("traceId")) for score in server.scores.values()]
    assert len(names) == len(set(names))


def test_the_attributes_are_those_of_the_sdk() -> None:
    known = {value for name, value in vars(LangfuseOtelSpanAttributes).items() if name.isupper()}
    end = Ended(PhaseStatus.FAILED, time.time(), error="bad")
    examined = rows(1)
    experiment = exam.Experiment.of("p", "d", workload="w", who="small base", answers="a", metadata={"x": 1}, asked_at=0.0)
    trace = exam._row_trace(experiment, examined[0], Prediction("row-00000", None, error="no"), content=True)
    sent = {*attributes_of(trace), *attributes_of(next(iter(story.ended(EVALUATION, end, content=True))))}
    prefixes = ("langfuse.trace.metadata.", "langfuse.observation.metadata.")
    assert {name for name in sent if not name.startswith(prefixes)} <= known


def test_a_training_shows_its_curve_and_losses(server: LangfuseServer, tmp_path: Path) -> None:
    store, told = folder_store(tmp_path), observer(tmp_path)
    training = phase(PhaseKind.TRAINING, graph.ADAPTER)
    with store.draft() as draft:
        (draft.path / "x").write_text("x")
        summary = {"loss_curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}], "validation": {"loss_after": 1.2}}
        adapter = published(store, draft, graph.ADAPTER, CELL, summary, "k")
    told.begin(training)
    for step in range(1, 301):
        told.reading(training, Reading(step, {"loss": 300.0 / step, "odd": float("nan")}, 0.0))
    told.end(training, finished(adapter))
    trace_id = str(told.link(training)).rsplit("/", 1)[1]
    curve = json.loads(of_trace(server, trace_id)["adapter"]["output"])["curve"]
    assert 50 <= len(curve) <= story.CURVE_POINTS + 1 and curve[-1] == {"step": 300, "loss": 1.0}
    assert {s["name"]: s["value"] for s in server.scores.values()} == {"training_loss": 1.5, "validation_loss": 1.2}


def test_a_failure_is_an_error_with_its_words_but_not_with_those_of_a_row(server: LangfuseServer, tmp_path: Path) -> None:
    message = "3 of 9 rows errored; the first: HTTP 400 'my private question'. Look at http://me:pw@endpoint/"
    for run, rows_leave, shown in (("a", False, "3 of 9 rows errored; see the run"), ("b", True, message)):
        about = phase(PhaseKind.EVALUATION, "evals/base", run=run)
        end = Ended(PhaseStatus.FAILED, time.time(), (Span("asking", 1.0, 2.0),), error=message)
        root = of_trace(server, tell(observer(tmp_path, rows=rows_leave), about, end))["evals/base"]
        assert (root["level"], root["statusMessage"]) == ("ERROR", shown.replace("me:pw@", ""))


def test_a_killed_run_gets_an_end_from_another_process(server: LangfuseServer, tmp_path: Path) -> None:
    told = observer(tmp_path)
    told.begin(EVALUATION)
    told.begin(DATASET)
    told.end(DATASET, finished())
    later = observer(tmp_path)
    later.bury(["run-1", "run-0", "run-of-another-host"])
    roots = {row["name"]: row for row in server.observations.values() if row["isRootObservation"]}
    assert json.loads(roots["evals/base"]["output"]) == {"status": "KILLED"}
    assert (roots["evals/base"]["level"], roots["datasets/base"]["level"]) == ("WARNING", "DEFAULT")
    calls = len(server.calls)
    later.bury(["run-1", "run-0"])
    assert len(server.calls) == calls


def test_rows_go_out_once_and_again_only_where_they_changed(server: LangfuseServer, tmp_path: Path) -> None:
    examined, store = rows(6), folder_store(tmp_path)

    def build(some: Sequence[EvalRow], key: str, **langfuse: Any) -> int:
        server.calls.clear()
        tell(observer(tmp_path, **langfuse), replace(DATASET, dagster_run=key), finished(published_base(store, some, key)))
        return sum("dataset-items" in call for call in server.calls)

    assert build(examined[:4], "a") == 4
    assert build(examined[:4], "b") == 0
    assert build(examined, "c") == 2
    assert {item["input"]["row_id"] for item in server.datasets.items.values()} == {row.row_id for row in examined}
    assert all(item["expectedOutput"] is None for item in server.datasets.items.values())
    # A row that left the exam, such as a forgotten trace, leaves the dataset.
    assert build(examined[1:], "d") == 1
    assert len(server.datasets.items) == 5
    # With content they are other items, under the same ids.
    assert build(examined[1:], "e", rows=True) == 5
    assert "private question" in json.dumps([item["input"] for item in server.datasets.items.values()])
    # Somebody deleted the dataset.
    server.datasets.sets.clear()
    server.datasets.items.clear()
    server.datasets.sets["other"] = {}
    assert build(examined[1:], "f", rows=True) == 5


def test_every_candidate_shows_the_same_rows_where_not_all_are_told(server: LangfuseServer, tmp_path: Path) -> None:
    _, built, end = exam_of(tmp_path, 30)
    told = observer(tmp_path, max_rows=7)
    tell(told, DATASET, built)
    trace_id = tell(told, EVALUATION, end)
    other = replace(EVALUATION, partition=replace(CELL, candidate="tiny"), dagster_run="run-2")
    tell(told, other, end)
    shown: dict[str, set[str]] = {}
    for span in server.datasets.spans.values():
        shown.setdefault(span["experiment"]["name"].split()[0], set()).add(span["experiment"]["item.id"])
    assert shown["small"] == shown["tiny"] == set(server.datasets.items) and len(shown["tiny"]) == 7
    assert of_trace(server, trace_id)["evals/base"]["metadata"]["rows"] == {"told": 7, "of": 30}


@pytest.mark.parametrize("rows_leave", [False, True])
def test_a_row_shows_its_scores_and_its_content_only_where_that_leaves(
    rows_leave: bool, server: LangfuseServer, tmp_path: Path
) -> None:
    _, built, end = exam_of(tmp_path, 4, right=2)
    told = observer(tmp_path, rows=rows_leave)
    tell(told, DATASET, built)
    tell(told, EVALUATION, end)
    ordered = sorted(experiment_rows(server), key=lambda row: str(row["metadata"]["row_id"]))
    assert [row["level"] for row in ordered] == ["DEFAULT"] * 3 + ["ERROR"]
    assert [row["latency"] for row in ordered] == [pytest.approx(0.02, abs=0.002)] * 4
    (seen,) = [row for row in server.observations.values() if row["name"] == "experiment"]
    identity = next(iter(server.datasets.spans.values()))["experiment"]["id"]
    assert json.loads(seen["output"])["url"].endswith(f"/project/proj1/experiments/results?baseline={identity}")
    right = {
        s["observationId"]: s["value"] for s in server.scores.values() if s["name"] == "exact_match" and "observationId" in s
    }
    assert [right[row["id"]] for row in ordered] == [1.0, 1.0, 0.0, 0.0]
    assert (b"private" in b"".join(server.bodies)) == rows_leave
    if rows_leave:
        assert json.loads(ordered[0]["output"])["content"] == "private answer 0"


def test_what_there_is_no_time_for_is_counted_and_told_by_a_later_phase(
    server: LangfuseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel_assets.resources.telemetry.langfuse.observer.FLUSH_S", 2.0)
    _, built, _ = exam_of(tmp_path, 200)
    told = observer(tmp_path)
    server.faults.extend([Fault(status=200, delay_s=0.1, path="dataset-items")] * 1000)
    told.begin(DATASET)
    began = time.monotonic()
    with pytest.raises(NotTold, match=r"\d+ of 200 dataset items: the time was up"):
        told.end(DATASET, replace(built, at=time.time()))
    assert time.monotonic() - began < 2.0
    sent = len(server.datasets.items)
    assert 0 < sent < 200
    server.faults.clear()
    server.calls.clear()
    monkeypatch.setattr("flywheel_assets.resources.telemetry.langfuse.observer.FLUSH_S", 60.0)
    told.end(DATASET, replace(built, at=time.time()))
    assert len(server.datasets.items) == 200
    # A few may have been taken after nobody waited for them any more.
    assert 200 - sent <= sum("dataset-items" in call for call in server.calls) <= 200 - sent + 8


def test_a_server_that_goes_away_is_asked_for_nothing_else(server: LangfuseServer, tmp_path: Path) -> None:
    _, _, end = exam_of(tmp_path, 5)
    told = observer(tmp_path)
    told.begin(EVALUATION)
    server.calls.clear()
    server.faults.extend([Fault(status=503)] * 100)
    with pytest.raises(NotTold) as lost:
        told.end(EVALUATION, end)
    assert len(server.calls) == 1
    assert "observations of the trace: " in str(lost.value) and "answered 503; " in str(lost.value)
    assert "5 rows" in str(lost.value)


@pytest.mark.parametrize("known", [True, False], ids=["by its version", "by its answer"])
def test_a_server_that_refuses_lists_of_scores_gets_them_the_older_way(
    known: bool, server: LangfuseServer, tmp_path: Path
) -> None:
    _, built, end = exam_of(tmp_path, 5)
    told = observer(tmp_path)
    if not known:
        told.begin(DATASET)
    server.version = "4.16.0"
    tell(told, DATASET, built)
    tell(told, EVALUATION, end)
    assert len([s for s in server.scores.values() if s["name"] == "exact_match"]) == 5 + 2
    assert server.refused_scores == 0 if known else server.refused_scores > 0
    refused = server.refused_scores
    tell(observer(tmp_path), replace(EVALUATION, dagster_run="run-3"), end)
    assert server.refused_scores == refused


def test_scores_that_no_way_takes_are_lost_and_said(server: LangfuseServer, tmp_path: Path) -> None:
    server.version, server.takes_events = "4.16.0", False
    _, _, end = exam_of(tmp_path, 5)
    with pytest.raises(NotTold, match=r"3 scores: .* answered 501.*; \d+ scores of rows: "):
        tell(observer(tmp_path), EVALUATION, end)
    assert len(experiment_rows(server)) == 5


def test_doctor_names_server_sdk_skew_and_what_leaves(server: LangfuseServer, tmp_path: Path) -> None:
    health = examine_langfuse(settings(tmp_path))
    assert health.ok and "project 'Proj'" in health.found and "server 5.2.0, SDK 5." in health.found
    assert "no content of rows leaves" in health.found and health.advice == ""
    server.version = "4.16.0"
    health = examine_langfuse(settings(tmp_path, rows=True))
    assert health.ok and "leave with their content" in health.found and "as SDK 4 posted them" in health.advice


def test_doctor_says_what_is_wrong(server: LangfuseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-wrong")
    health = examine_langfuse(settings(tmp_path))
    assert not health.ok and "refuses the keys" in health.found and "sk-wrong" not in str(health)
    server.stop()
    assert "cannot be reached" in examine_langfuse(settings(tmp_path)).found
    monkeypatch.delenv("LANGFUSE_SECRET_KEY")
    assert "LANGFUSE_SECRET_KEY not set" in examine_langfuse(settings(tmp_path)).found


def test_our_traces_are_no_traffic(server: LangfuseServer, tmp_path: Path) -> None:
    _, built, end = exam_of(tmp_path, 5)
    told = observer(tmp_path, rows=True)
    tell(told, DATASET, built)
    tell(told, EVALUATION, end)
    assert len(server.observations) > 5
    # Neither by default, nor where somebody reads every environment by name: they are no generations.
    for environments in ((), ("flywheel", "sdk-experiment")):
        read = reading(server, tmp_path / str(len(environments)), environments=environments)
        assert read.sweep().done and read.records("tickets") == {}
    # A generation that somebody else sends to our environment is none either.
    generation = {**next(iter(experiment_rows(server))), "id": "g", "type": "GENERATION", "environment": "flywheel"}
    server.add(generation)
    read = reading(server, tmp_path / "again")
    assert read.sweep().done and read.store.workloads() == []


def test_neither_keys_nor_anything_else_is_imported_or_asked_before_the_first_phase(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.langfuse_phases import settings\n"
        "from flywheel_assets.resources.telemetry import telemetry_of\n"
        f"home = Path({str(tmp_path)!r})\n"
        "told = telemetry_of(settings(home))\n"
        "print(told.names, told.imports[0], any(name in sys.modules for name in told.imports))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "('Langfuse',) langfuse.api False"


def test_a_hanging_server_holds_up_neither_a_phase_nor_the_end_of_its_process(
    server: LangfuseServer, tmp_path: Path
) -> None:
    server.faults.extend([Fault(delay_s=60)] * 100)
    code = (
        "import sys, time, logging; from pathlib import Path\n"
        "import langfuse.api\n"
        "from flywheel_assets.resources.telemetry import PhaseStatus, telemetry_of\n"
        "from tests.langfuse_phases import EVALUATION, settings\n"
        f"home = Path({str(tmp_path)!r})\n"
        "told = telemetry_of(settings(home))\n"
        "began = time.monotonic()\n"
        "lost = told.begin(EVALUATION).end(PhaseStatus.FINISHED).lost\n"
        "again = told.begin(EVALUATION).end(PhaseStatus.FINISHED).lost\n"
        "print(round(time.monotonic() - began, 1), lost[0], again[0], sep='|')"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    took = time.monotonic() - began
    seconds, lost, again = done.stdout.strip().split("|")
    # Two seconds a request; five, where a machine is so busy that the imports take the rest.
    assert float(seconds) < 8 and ("did not answer within 2.0 s" in lost or "took longer than 5 s" in lost)
    assert "was not told 2 messages" in again
    # The server's answer would come after a minute; what is left is Python's own start and end.
    assert took < 60 and SECRET_KEY not in done.stderr + done.stdout


def test_no_tracer_of_anybody_elses_is_touched(server: LangfuseServer, tmp_path: Path) -> None:
    from opentelemetry import trace

    before = trace.get_tracer_provider()
    telemetry = telemetry_of(settings(tmp_path))
    assert telemetry.begin(DATASET).end(PhaseStatus.FINISHED).lost == ()
    assert trace.get_tracer_provider() is before
