"""The named jobs: what the launchpad offers, what it refuses, and how a run of one is found again."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id

from flywheel_assets.core.graph import Partition
from flywheel_assets.jobs import EVALUATE_JOB, PROMOTE_JOB, REFRESH_JOB
from flywheel_assets.resources.runs import FLYWHEEL_RUN_TAG, OWNER_TAG, partition_tags
from tests.assets.conftest import Bench, bench, instance

__all__ = ["bench", "instance"]


def launched(bench: Bench, job: str, config: dict[str, Any], tags: dict[str, str] | None = None) -> Any:
    """A run of a job in this process, with what a person filled in."""
    (op,) = (node.name for node in bench.defs.resolve_job_def(job).nodes)
    run_config = {"ops": {op: {"config": config}}, "loggers": {"console": {}}}
    return bench.defs.resolve_job_def(job).execute_in_process(
        instance=bench.instance, run_config=run_config, raise_on_error=False, tags=tags
    )


def said_by_failure(result: Any) -> str:
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    return str(failure.step_failure_data.user_failure_data.description)


def test_the_launchpad_opens_with_a_workload_and_a_candidate_of_flywheel_yaml(bench: Bench) -> None:
    bench.content["workloads"] = {"tickets": {}}
    evaluate = bench.defs.resolve_job_def(EVALUATE_JOB)
    assert evaluate.run_config == {"ops": {"evaluate": {"config": {"workload": "tickets", "candidate": "small"}}}}
    assert bench.defs.resolve_job_def(REFRESH_JOB).run_config == {"ops": {"refresh": {"config": {"workload": "tickets"}}}}


def test_one_process_can_make_the_jobs_of_two_settings(bench: Bench) -> None:
    assert bench.defs.resolve_job_def(EVALUATE_JOB)
    bench.content["candidates"] = [{"id": "another", "model": "small.gguf"}]
    evaluate = bench.defs.resolve_job_def(EVALUATE_JOB)
    assert evaluate.run_config is not None and evaluate.run_config["ops"]["evaluate"]["config"]["candidate"] == "another"


def test_every_field_of_every_job_says_what_belongs_into_it(bench: Bench) -> None:
    for job in (REFRESH_JOB, EVALUATE_JOB, PROMOTE_JOB):
        definition = bench.defs.resolve_job_def(job)
        assert definition.description
        for node in definition.nodes:
            fields = node.definition.config_schema.config_type.fields  # type: ignore[attr-defined]
            assert fields and all(field.description for field in fields.values()), job


def test_a_workload_nobody_knows_is_refused_with_the_known_ones(bench: Bench) -> None:
    bench.ingest(60)
    result = launched(bench, REFRESH_JOB, {"workload": "tickts"})
    assert not result.success
    assert said_by_failure(result) == "unknown workload 'tickts'. In the trace store: tickets."


def test_a_candidate_nobody_knows_does_not_even_start(bench: Bench) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="smal"):
        launched(bench, EVALUATE_JOB, {"workload": "tickets", "candidate": "smal"})


def test_a_run_launched_by_hand_is_found_by_its_workload_candidate_and_flywheel_run(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    job = bench.defs.resolve_implicit_global_asset_job_def()
    for path, partition in ((["records"], Partition("tickets")), (["prefix"], Partition("tickets", "small"))):
        key = dg.MultiPartitionKey({"workload": "tickets", "candidate": "small"}) if partition.candidate else "tickets"
        result = job.execute_in_process(
            instance=bench.instance,
            asset_selection=[dg.AssetKey(path)],
            partition_key=key,
            run_config={"loggers": {"console": {}}},
            run_id=make_new_run_id(),
        )
        run = bench.instance.get_run_by_id(result.run_id)
        assert run is not None and partition_tags(partition).items() <= run.tags.items()
        assert run.tags[FLYWHEEL_RUN_TAG] == run.run_id and OWNER_TAG in run.tags


def test_every_run_of_a_turn_is_found_by_the_turn(bench: Bench) -> None:
    bench.ingest(120)
    report = bench.turn()
    runs = bench.instance.get_runs()
    assert runs and {run.tags[FLYWHEEL_RUN_TAG] for run in runs} == {report.flywheel_run}
    cells = [run for run in runs if run.tags.get("flywheel/candidate") == "tiny"]
    assert cells and {run.tags["flywheel/workload"] for run in cells} == {"tickets"}
