from __future__ import annotations

import subprocess
import sys
import time

import dagster as dg
import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.processes import ProcessIdentity, this_process
from flywheel_assets.resources.runs import BATCH_TAG, OWNER_TAG, bury_dead_runs
from flywheel_assets.sensors import reconcile
from flywheel_assets.settings import load_settings
from tests.assets.conftest import Bench, bench, instance
from tests.elasticsearch_server import free_port
from tests.sensors.daemon import Daemon

__all__ = ["bench", "instance"]


# Datasets are all that pacing is about; examining a candidate would take most of the time.
NOBODY_EXAMINED = [{"id": "small", "model": "small.gguf", "workloads": []}]


def tick(bench: Bench) -> dg.SensorResult | dg.SkipReason:
    sensor = bench.defs.resolve_sensor_def("reconcile")
    context = dg.build_sensor_context(
        instance=bench.instance,
        instance_ref=bench.instance.get_ref(),
        definitions=bench.defs,
        resources={"flywheel": bench.flywheel},
    )
    result = sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requests(bench: Bench) -> list[dg.RunRequest]:
    result = tick(bench)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or ())


def skipped(bench: Bench) -> str:
    result = tick(bench)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def test_a_trace_store_that_is_down_is_a_reason_and_not_a_failed_tick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.content |= {"trace_store": "elasticsearch", "elasticsearch": {"retry_s": 600}}
    monkeypatch.setenv("ELASTICSEARCH_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(reconcile, "STORE_BUDGET_S", 1.0)
    began = time.monotonic()
    assert "Is the server up, and ELASTICSEARCH_URL right?" in skipped(bench) and time.monotonic() - began < 10


def test_a_requested_run_is_found_by_its_workload_and_its_turn(bench: Bench) -> None:
    bench.ingest(120)
    (request,) = requests(bench)
    assert request.tags["flywheel/workload"] == "tickets" and "flywheel/candidate" not in request.tags
    assert request.tags["flywheel/run"]


def test_a_new_workload_becomes_a_partition_and_its_datasets_are_requested(bench: Bench) -> None:
    bench.ingest(120)
    found = requests(bench)
    assert bench.instance.get_dynamic_partitions(str(WORKLOAD.name)) == ["tickets"]
    assert [request.partition_key for request in found] == ["tickets"]
    assert [key.to_user_string() for key in found[0].asset_selection or ()] == [
        "records",
        "workload_profile",
        "datasets/base",
        "datasets/train",
    ]


def test_the_first_tick_that_sees_a_complete_batch_asks_for_its_run(bench: Bench) -> None:
    # So a run is asked for one interval after its batch is in the store, and two where a source has to fetch it first.
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.content["automation"] = {"min_new_records": 100}
    bench.ingest(99)
    assert "99 new records, 100 are waited for" in skipped(bench)
    bench.ingest(1, seed=8)
    assert "tickets" in [request.partition_key for request in requests(bench)]
    bench.turn()
    bench.ingest(120, seed=9)
    assert [request.partition_key for request in requests(bench)] == ["tickets"]


def test_what_was_published_and_not_told_is_told_by_the_next_tick(bench: Bench) -> None:
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.ingest(120)
    bench.turn()
    assert isinstance(tick(bench), dg.SkipReason)
    bench.instance.wipe_assets([asset_key(graph.TRAIN)])
    (request,) = requests(bench)
    assert asset_key(graph.TRAIN) in (request.asset_selection or ())


def test_the_same_stale_batch_has_the_same_run_key_so_it_is_started_once(bench: Bench) -> None:
    bench.ingest(120)
    assert [r.run_key for r in requests(bench)] == [r.run_key for r in requests(bench)]


def test_nothing_stale_is_a_skip_a_person_understands(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    skipped = tick(bench)
    assert isinstance(skipped, dg.SkipReason)
    assert "Nothing to start (1 workloads looked at" in str(skipped.skip_message)


def test_a_batch_under_way_is_not_requested_again(bench: Bench) -> None:
    bench.ingest(120)
    request = requests(bench)[0]
    job = bench.defs.resolve_implicit_global_asset_job_def()
    bench.instance.create_run_for_job(
        job, tags={**request.tags, OWNER_TAG: str(this_process())}, status=DagsterRunStatus.STARTED
    )
    assert isinstance(tick(bench), dg.SkipReason)


def test_a_dead_run_is_reported_and_its_batch_asked_for_under_another_key(bench: Bench) -> None:
    bench.ingest(120)
    request = requests(bench)[0]
    job = bench.defs.resolve_implicit_global_asset_job_def()
    dead = ProcessIdentity(this_process().host, _finished_pid(), 1.0)
    run = bench.instance.create_run_for_job(
        job, tags={**request.tags, OWNER_TAG: str(dead)}, status=DagsterRunStatus.STARTED
    )
    again = requests(bench)[0]
    assert bench.instance.get_run_by_id(run.run_id).status is DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    assert again.tags[BATCH_TAG] == request.tags[BATCH_TAG]
    assert again.run_key != request.run_key


def test_a_recorded_failure_is_left_for_a_person(bench: Bench) -> None:
    bench.ingest(120)
    bench.platform.train_error = {"tiny": RuntimeError("out of memory")}
    bench.turn()
    assert isinstance(tick(bench), dg.SkipReason)


def test_a_run_of_another_host_is_never_declared_dead(instance: DagsterInstance, bench: Bench) -> None:
    job = bench.defs.resolve_implicit_global_asset_job_def()
    elsewhere = ProcessIdentity("another-host", 1, 1.0)
    instance.create_run_for_job(job, tags={OWNER_TAG: str(elsewhere)}, status=DagsterRunStatus.STARTED)
    assert bury_dead_runs(instance) == []


def test_runs_in_flight_are_bounded(bench: Bench) -> None:
    bench.content["automation"] = {"max_runs": 3}
    for number in range(5):
        bench.ingest(60, workload=f"w{number}")
    assert len(requests(bench)) == 3


def test_few_new_records_wait_until_there_are_enough(bench: Bench) -> None:
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.content["automation"] = {"min_new_records": 30}
    bench.ingest(20)
    # No dataset can be built of fewer than split.min_total_records.
    assert skipped(bench).endswith("New records wait: tickets: 20 new records, 50 are waited for.")
    bench.ingest(120)
    assert requests(bench)
    bench.turn()
    bench.ingest(10, seed=8)
    assert "tickets: 10 new records, 30 are waited for" in skipped(bench)
    bench.ingest(40, seed=9)
    assert [request.partition_key for request in requests(bench)] == ["tickets"]


def test_a_workload_cools_down_between_two_turns(bench: Bench) -> None:
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.ingest(120)
    bench.turn()
    bench.content["workloads"] = {"tickets": {"automation": {"cooldown_minutes": 90}}}
    bench.ingest(60, seed=8)
    assert "tickets: cooling down for another 90 min" in skipped(bench)
    bench.content["workloads"] = {"tickets": {"automation": {"cooldown_minutes": 0}}}
    assert requests(bench)


def test_an_edited_setting_starts_its_work_while_new_records_wait(bench: Bench) -> None:
    bench.content["candidates"] = bench.content["candidates"][:1]
    bench.ingest(120)
    bench.turn()
    bench.content["automation"] = {"min_new_records": 1000}
    bench.ingest(60, seed=8)
    assert "60 new records" in skipped(bench)
    bench.content["decision"] = {"alpha": 0.1}
    (request,) = requests(bench)
    assert next(key.to_user_string() for key in request.asset_selection or ()) == "decision"


def test_an_edited_file_is_obeyed_by_the_next_tick_of_a_server_that_read_the_old_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(bench.folder / "home"))
    file = bench.folder / "flywheel.yaml"
    file.write_text(yaml.safe_dump({**bench.content, "candidates": NOBODY_EXAMINED}))
    bench.content["candidates"] = NOBODY_EXAMINED
    server = Daemon(bench, flywheel=Flywheel.at_home(load_settings(file)))
    bench.ingest(120)
    for request in server.requests():
        server.execute(request)
    assert "Nothing to start" in server.skipped()
    # The runs of a code server read the file when they start.
    bench.content["split"] = {**bench.content["split"], "val_ratio": 0.2}
    file.write_text(yaml.safe_dump(bench.content))
    for request in server.requests():
        server.execute(request)
    assert server.asked == ["tickets@data", "tickets@data"]
    assert "Nothing to start" in server.skipped()

    file.write_text("candidates: {")
    assert "is not valid YAML" in server.skipped()
    file.write_text(yaml.safe_dump({**bench.content, "candidates": [{"id": "brand-new", "model": "small.gguf"}]}))
    assert "does not know yet (brand-new): reload it" in server.skipped()


def test_a_run_that_ends_well_and_changes_nothing_is_not_asked_for_for_ever(bench: Bench) -> None:
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.ingest(120)
    (request,) = requests(bench)
    job = bench.defs.resolve_implicit_global_asset_job_def()
    for _ in range(reconcile.MOST_REPEATS):
        assert requests(bench)
        bench.instance.create_run_for_job(job, tags=request.tags, status=DagsterRunStatus.SUCCESS)
    assert "runs of tickets@data ended well 3 times within the hour" in skipped(bench)


def test_a_person_who_runs_the_plan_is_not_paced(bench: Bench) -> None:
    bench.content["candidates"] = NOBODY_EXAMINED
    bench.content["automation"] = {"min_new_records": 1000}
    bench.ingest(120)
    assert bench.turn().materialized


@pytest.mark.parametrize("name", ["reconcile", "janitor"])
def test_sensors_ship_stopped(bench: Bench, name: str) -> None:
    assert bench.defs.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.STOPPED


def _finished_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid
