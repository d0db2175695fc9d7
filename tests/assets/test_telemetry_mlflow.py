"""A turn of the loop told to a real MLflow server: what is there to see, and what a server in trouble changes (nothing)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.errors import DagsterExecutionInterruptedError

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.assets.metadata import url_of
from flywheel_assets.booking import RunReport
from flywheel_assets.cli_promote import act
from flywheel_assets.core import graph
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.graph import ADAPTER, DECISION, Partition
from flywheel_assets.core.rows import Answer, EvalRow, Json, Variant
from flywheel_assets.resources.telemetry import Phase, PhaseKind, PhaseStatus, telemetry_of
from flywheel_assets.resources.telemetry.mlflow import journal
from flywheel_assets.settings import parse_settings
from tests.assets.conftest import SETTINGS, Bench
from tests.fake_platform import talkative
from tests.faulty_proxy import FaultyProxy
from tests.instances import local_instance
from tests.mlflow_server import client_of, free_port, mlflow_server, runs_in

EXPERIMENT = "flywheel/tickets"
MODEL = "flywheel-tickets"
# Each turn of the loop takes some ten seconds on a machine with nothing else to do.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="module")
def told(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, RunReport]]:
    """A turn with one candidate that is promoted, and one whose training fails."""
    folder = tmp_path_factory.mktemp("bench")
    with local_instance(folder) as instance:
        bench = promising(Bench(folder, instance), server)
        bench.platform.train_error = {"tiny": RuntimeError("out of memory")}
        bench.ingest(300)
        yield bench, bench.turn()


def promising(bench: Bench, tracking_uri: str | None) -> Bench:
    """A flywheel in which a customized model is good enough to be promoted."""
    bench.platform.answers = talkative
    bench.content["split"] = {"eval_size": 100, "min_total_records": 50}
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.2}]}
    bench.content["telemetry"] = {"ui_url": "http://dagster", "mlflow": {"enabled": True, "tracking_uri": tracking_uri}}
    return bench


def warnings(instance: DagsterInstance) -> dict[str, list[str]]:
    """What each Dagster run warned of."""
    found = {}
    for run in instance.get_runs():
        entries = (entry for entry in instance.all_logs(run.run_id) if entry.level >= 30 and not entry.dagster_event)
        if messages := [entry.user_message for entry in entries]:
            found[run.run_id] = messages
    return found


def test_every_phase_has_its_run_nested_in_that_of_its_cell(told: tuple[Bench, RunReport], server: str) -> None:
    runs = runs_in(server, EXPERIMENT)
    of_cells = {"finetune_decision", "adapter", "prefix", "evals/base", "evals/prefixed", "evals/customized"}
    assert set(runs) == of_cells | {"records", "workload_profile", "datasets/base", "comparison", "decision"} | {
        "small",
        "tiny",
    }
    client = client_of(server)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    for candidate in ("small", "tiny"):
        nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{runs[candidate].info.run_id}'")
        names = {run.info.run_name for run in nested}
        assert names == (of_cells if candidate == "small" else of_cells - {"evals/customized"})
        assert {run.data.tags["flywheel/candidate"] for run in nested} == {candidate}
    assert "mlflow.parentRunId" not in runs["decision"].data.tags
    assert set(runs_in(server, "flywheel/_all")) == {"model_catalog"}


def test_all_runs_are_finished_but_those_of_what_failed(told: tuple[Bench, RunReport], server: str) -> None:
    bench, report = told
    assert list(report.failures) == ["adapter of tickets x tiny"]
    client = client_of(server)
    experiments = [found.experiment_id for found in client.search_experiments(filter_string="name LIKE 'flywheel/%'")]
    runs = client.search_runs(experiments, max_results=500)
    badly = {(run.info.run_name, run.data.tags["flywheel/candidate"]) for run in runs if run.info.status != "FINISHED"}
    assert badly == {("adapter", "tiny"), ("tiny", "tiny")}
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    assert [*(bench.flywheel.settings.home / "telemetry" / "mlflow" / "open").glob("*")] == []
    assert [message for run in warnings(bench.instance).values() for message in run if "MLflow" in message] == []


def test_links_lead_both_ways(told: tuple[Bench, RunReport], server: str) -> None:
    bench, _ = told
    runs = runs_in(server, EXPERIMENT)
    for asset in ("decision", "datasets/base"):
        event = bench.instance.get_latest_materialization_event(asset_key(asset))
        assert event is not None and event.asset_materialization is not None
        link = url_of(event.asset_materialization.metadata["MLflow"])
        assert link == f"{server}/#/experiments/{runs[asset].info.experiment_id}/runs/{runs[asset].info.run_id}"
        assert runs[asset].data.tags["dagster_run_id"] == event.run_id
        assert f"(http://dagster/runs/{event.run_id})" in runs[asset].data.tags["mlflow.note.content"]


def test_a_run_says_from_what_it_was_made_and_what_came_of_it(told: tuple[Bench, RunReport], server: str) -> None:
    bench, _ = told
    runs = runs_in(server, EXPERIMENT)
    artifacts = bench.flywheel.artifacts
    examined = runs["evals/customized"]
    scores = artifacts.require("evals/customized", Partition("tickets", "small")).summary["scores"]["function_name"]
    shown = examined.data.metrics
    assert [shown[f"function_name{end}"] for end in ("", "_low", "_high", "_n")] == [
        scores[key] for key in ("value", "low", "high", "n")
    ]
    base = artifacts.require("datasets/base", Partition("tickets"))
    (dataset,) = examined.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("datasets/base@tickets", base.data_version[:36])
    assert runs["small"].data.metrics["customized/function_name"] == scores["value"]
    trained = client_of(server).search_runs(
        [examined.info.experiment_id], "tags.`flywheel/phase` = 'adapter' AND tags.`flywheel/candidate` = 'small'"
    )[0]
    history = client_of(server).get_metric_history(trained.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert trained.data.params["training.epochs"]
    decided = runs["decision"].data.tags
    assert (decided["flywheel/verdict"], decided["flywheel/winner"]) == ("promote", "small (customized)")


def test_aliases_follow_decision_approval_and_rollback(told: tuple[Bench, RunReport], server: str) -> None:
    bench, _ = told
    client = client_of(server)

    def aliases() -> Json:
        return {alias: str(version) for alias, version in client.get_registered_model(MODEL).aliases.items()}

    def does(action: str) -> None:
        act(bench.instance, bench.flywheel.settings, action, "tickets", who="Ada", why="seen")

    adapter = bench.flywheel.artifacts.require(ADAPTER, Partition("tickets", "small"))
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert version.tags["flywheel/adapter_version"] == adapter.version
    assert version.source == f"flywheel:/adapter/tickets/small/{adapter.version}"
    assert client.get_run(version.run_id).info.run_name == "adapter"
    assert aliases() == {"challenger": version.version}
    does("approve")
    assert aliases() == {"champion": version.version}
    does("rollback")
    # Nobody is asked again about what was taken back.
    assert aliases() == {}
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.25}]}
    bench.turn()
    assert bench.flywheel.artifacts.require(DECISION, Partition("tickets")).summary["verdict"] == "promote"
    assert aliases() == {"challenger": version.version}
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_another_prefix_is_another_version_that_names_it(server: str, bench: Bench) -> None:
    promising(bench, server)
    bench.content["telemetry"]["mlflow"] |= {"experiment": "prefixed/{workload}", "registered_model": "prefixed-{workload}"}
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf", "trainable": False}]
    wrong: list[str] = []

    def prefixed_is_right(_: str, variant: Variant, row: EvalRow) -> Answer:
        return row.reference if variant is Variant.PREFIXED and row.row_id not in wrong else Answer("Python")

    bench.platform.answers = prefixed_is_right
    bench.ingest(300)
    assert bench.turn().ok
    bench.content["prefix"] = {"shots": 3}
    # With the same answers the first prefix would stay the one that was decided on.
    base = bench.flywheel.artifacts.require(graph.BASE, Partition("tickets"))
    wrong.append(next(row.row_id for row in read_eval_rows(base.path) if row.reference.tool_calls))
    assert bench.turn().ok
    client = client_of(server)
    versions = client.search_model_versions("name = 'prefixed-tickets'")
    prefixes = bench.flywheel.artifacts.history(graph.PREFIX, Partition("tickets", "small"))
    assert len(prefixes) == 2
    assert {one.tags["flywheel/prefix_version"] for one in versions} == {one.version for one in prefixes}
    newest = client.get_model_version_by_alias("prefixed-tickets", "challenger")
    assert newest.source == f"flywheel:/prefix/tickets/small/{prefixes[-1].version}"


def test_an_interrupted_training_ends_as_killed(told: tuple[Bench, RunReport], server: str) -> None:
    bench, _ = told
    bench.platform.train_error = {"small": DagsterExecutionInterruptedError()}
    bench.content["training"] = {"epochs": 2}
    assert "adapter of tickets x small" in bench.turn(candidates=("small",)).failures
    runs = runs_in(server, EXPERIMENT)
    assert (runs["adapter"].info.status, runs["small"].info.status) == ("KILLED", "KILLED")
    bench.platform.train_error = {}


def test_an_end_that_could_not_be_told_is_told_by_the_next_phase(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Imports MLflow before the background thread does: at once they could deadlock.
    assert runs_in(server, "flywheel/away") == {}
    proxy = FaultyProxy(server)
    content = {**SETTINGS, "telemetry": {"mlflow": {"enabled": True, "tracking_uri": proxy.url}}}
    telemetry = telemetry_of(parse_settings(content, home=tmp_path, root=tmp_path))
    cell = Partition("away", "small")
    phase = Phase(PhaseKind.TRAINING, ADAPTER, (ADAPTER,), cell, "run1", "turn1", "http://dagster", time.time())

    def away(proxy: FaultyProxy, handler: Any, _: Any) -> bool:
        proxy.reply(handler, 503, b"{}")
        return True

    try:
        watching = telemetry.begin(phase)
        while "adapter" not in runs_in(server, "flywheel/away"):
            time.sleep(0.1)
        watching.reading(1, {"loss": 2.0})
        time.sleep(1)
        proxy.fault = away
        assert watching.end(PhaseStatus.FINISHED).lost
        assert {run.info.status for run in runs_in(server, "flywheel/away").values()} == {"RUNNING"}
        # Minutes later, as far as anybody can tell: MLflow is there again and is asked again.
        proxy.fault = None
        monkeypatch.setattr(journal, "_LATE_S", -1.0)
        for tripped in (tmp_path / "telemetry").glob("*.json"):
            tripped.unlink()
        later = replace(phase, partition=Partition("other"), dagster_run="run2", started=time.time())
        assert telemetry.begin(later).end(PhaseStatus.FINISHED).lost == ()
    finally:
        proxy.close()
    assert {name: run.info.status for name, run in runs_in(server, "flywheel/away").items()} == {
        "adapter": "FINISHED",
        "small": "FINISHED",
    }


def _data(bench: Bench) -> None:
    """Records, profile and datasets of one workload: three phases, and no model."""
    selection = [asset_key(name) for name in (graph.RECORDS, graph.PROFILE, graph.BASE, graph.TRAIN)]
    bench.ingest(120)
    bench.instance.add_dynamic_partitions("workload", ["tickets"])
    job = bench.defs.resolve_implicit_global_asset_job_def()
    made = job.execute_in_process(
        instance=bench.instance,
        asset_selection=selection,
        partition_key="tickets",
        run_config={"loggers": {"console": {}}},
    )
    assert made.success


def _versions(bench: Bench) -> dict[str, str]:
    names = (graph.RECORDS, graph.PROFILE, graph.BASE, graph.TRAIN)
    return {name: bench.flywheel.artifacts.require(name, Partition("tickets")).data_version for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["down", "500", "hanging"])
def test_a_server_in_trouble_changes_nothing_and_is_warned_of_once(bench: Bench, tmp_path: Path, trouble: str) -> None:
    _data(bench)
    expected = _versions(bench)

    def fault(proxy: FaultyProxy, handler: Any, _: Any) -> bool:
        if trouble == "hanging":
            time.sleep(15)
            handler.close_connection = True
            return True
        proxy.reply(handler, 500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}')
        return True

    proxy = FaultyProxy(f"http://127.0.0.1:{free_port()}")
    proxy.fault = fault
    folder = tmp_path / trouble
    folder.mkdir()
    try:
        with local_instance(folder) as instance:
            url = f"http://127.0.0.1:{free_port()}" if trouble == "down" else proxy.url
            troubled = Bench(folder, instance)
            troubled.content["telemetry"] = {"mlflow": {"enabled": True, "tracking_uri": url}}
            _data(troubled)
            assert _versions(troubled) == expected
            (said,) = warnings(instance).values()
    finally:
        proxy.close()
    assert len(said) == 1 and said[0].startswith("MLflow was not told") and said[0].endswith("Results are not affected.")
    assert len(proxy.requests) <= 1
