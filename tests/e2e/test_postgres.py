"""The loop on PostgreSQL is that on sqlite: the same versions, predictions and verdicts, the same promises of sensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import DagsterInstance

from flywheel_assets.core import graph
from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.status import status_of
from tests.assets.conftest import Bench
from tests.postgres import PROFILE, REPOSITORY, execute, own_database, postgres_instance, running_server

# What those tests promise of sqlite they promise of PostgreSQL: here they run with the `instance` of this module.
from tests.resources.test_runs import (
    dead,
    test_a_run_tried_again_does_not_die_of_its_parents_owner,
    test_a_run_whose_process_died_is_buried_whether_it_had_begun_or_not,
)
from tests.sensors.test_reconcile import (
    test_a_batch_under_way_is_not_requested_again,
    test_a_dead_run_is_reported_and_its_batch_asked_for_under_another_key,
    test_a_new_workload_becomes_a_partition_and_its_datasets_are_requested,
    test_an_edited_setting_starts_its_work_while_new_records_wait,
    test_few_new_records_wait_until_there_are_enough,
)

__all__ = [
    "dead",
    "test_a_batch_under_way_is_not_requested_again",
    "test_a_dead_run_is_reported_and_its_batch_asked_for_under_another_key",
    "test_a_new_workload_becomes_a_partition_and_its_datasets_are_requested",
    "test_a_run_tried_again_does_not_die_of_its_parents_owner",
    "test_a_run_whose_process_died_is_buried_whether_it_had_begun_or_not",
    "test_an_edited_setting_starts_its_work_while_new_records_wait",
    "test_few_new_records_wait_until_there_are_enough",
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_server() as url:
        yield url


@pytest.fixture
def instance(tmp_path: Path, server: str) -> Iterator[DagsterInstance]:
    with postgres_instance(tmp_path, own_database(server)) as instance:
        yield instance


@pytest.fixture
def bench(tmp_path: Path, instance: DagsterInstance) -> Bench:
    return Bench(tmp_path, instance)


def test_the_instance_is_that_of_sqlite_but_for_its_storage() -> None:
    ours, theirs = (yaml.safe_load(path.read_text()) for path in (REPOSITORY / "dagster.yaml", PROFILE))
    assert ours.pop("storage").keys() == {"sqlite"}
    storage = theirs.pop("storage")
    assert storage["custom"]["config"] == {"postgres_url": {"env": "FLYWHEEL_POSTGRES_URL"}}
    assert ours == theirs


def made(flywheel: Flywheel) -> dict[str, Any]:
    """What a flywheel holds that must not depend on where Dagster keeps its events."""
    published = {
        (node.name, partition): artifact
        for node in graph.NODES
        # The catalog says when each decision was made and expires, which no two plays have in common.
        if node.name != graph.CATALOG
        for partition in partitions_of(node.name)
        if (artifact := flywheel.artifacts.published(node.name, partition)) is not None
    }
    predictions = {
        where: pq.read_table(file).to_pylist()
        for where in published
        if (file := flywheel.artifacts.require(*where).path / "predictions.parquet").is_file()
    }
    status = status_of(flywheel)["workloads"]
    return {
        "versions": {where: artifact.data_version for where, artifact in published.items()},
        "predictions": predictions,
        "verdicts": {
            name: [workload["decision"][key] for key in ("verdict", "candidate", "variant", "needed_rows", "reasons")]
            for name, workload in status.items()
        },
        "scores": {name: workload["cells"] for name, workload in status.items()},
    }


def partitions_of(asset: str) -> list[graph.Partition]:
    cells = [graph.Partition("tickets", "small")]
    by_scope = {graph.Scope.ALL: [graph.EVERYTHING], graph.Scope.WORKLOAD: [graph.Partition("tickets")]}
    return by_scope.get(graph.scope_of(asset), cells)


@pytest.mark.slow
def test_two_turns_make_the_same_on_sqlite_and_on_postgresql(tmp_path: Path, server: str) -> None:
    def play(folder: Path, instance: DagsterInstance) -> list[dict[str, Any]]:
        bench = Bench(folder, instance)
        bench.content["candidates"] = bench.content["candidates"][:1]
        seen = []
        for records, seed in ((150, 7), (60, 8)):
            bench.ingest(records, seed=seed)
            report = bench.turn()
            assert report.ok, (report.failures, report.holes)
            seen.append(made(bench.flywheel))
        assert bench.turn().materialized == []
        return seen

    homes = {name: tmp_path / name for name in ("sqlite", "postgres")}
    for home in homes.values():
        home.mkdir()
    with DagsterInstance.local_temp(str(homes["sqlite"]), overrides={"telemetry": {"enabled": False}}) as instance:
        on_sqlite = play(homes["sqlite"], instance)
    url = own_database(server)
    with postgres_instance(homes["postgres"], url) as instance:
        on_postgres = play(homes["postgres"], instance)
        ended = instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        assert instance.get_dynamic_partitions(str(WORKLOAD.name)) == ["tickets"]
        assert not [slots for key in instance.event_log_storage.get_concurrency_keys()
                    if (slots := instance.event_log_storage.get_concurrency_info(key).active_slot_count)]  # fmt: skip
    assert len(on_sqlite[0]["predictions"]) == 3
    for turn in (0, 1):
        for what in on_sqlite[turn]:
            assert on_postgres[turn][what] == on_sqlite[turn][what], what
    assert execute(url, "SELECT count(*) FROM runs WHERE status = 'SUCCESS'") == [(len(ended),)] and ended
    assert not list(homes["postgres"].rglob("*.db")), "nothing of Dagster's is kept in sqlite"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_any_spelling_of_the_url_opens_the_instance(tmp_path: Path, server: str, scheme: str) -> None:
    database = own_database(server)
    role = f"odd_{scheme.replace('+', '_')}"
    execute(server, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'a:b/c%d@e'")
    rest = database.partition("@")[2]
    with postgres_instance(tmp_path, f"{scheme}://{role}:a%3Ab%2Fc%25d%40e@{rest}") as instance:
        instance.add_dynamic_partitions("workload", ["tickets"])
        assert "a:b/c" not in instance.info_str() and "a%3Ab" not in instance.info_str()
    assert execute(database, "SELECT partition FROM dynamic_partitions") == [("tickets",)]


def test_as_many_workloads_as_sqlite_cannot_take_at_once_are_no_limit_here(instance: DagsterInstance) -> None:
    instance.add_dynamic_partitions("workload", [f"w{number}" for number in range(40_000)])
    assert len(instance.get_dynamic_partitions("workload")) == 40_000
