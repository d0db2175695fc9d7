"""What was materialized last is heard at once, and not asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from flywheel_assets.announcements import Announcements
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.graph import EVERYTHING, Partition
from flywheel_assets.partitions import partition_key

CELL = Partition("tickets", "small")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@pytest.fixture
def asked(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The assets whose partitions the event log was asked for."""
    names: list[str] = []
    ask = instance.event_log_storage.get_latest_tags_by_partition

    def counted(key: dg.AssetKey, *rest: Any, **more: Any) -> Any:
        names.append(key.to_user_string())
        return ask(key, *rest, **more)

    monkeypatch.setattr(instance.event_log_storage, "get_latest_tags_by_partition", counted)
    return names


def materialize(instance: DagsterInstance, name: str, partition: Partition, version: str) -> None:
    event = dg.AssetMaterialization(asset_key(name), partition=partition_key(partition), tags={DATA_VERSION_TAG: version})
    instance.report_runless_asset_event(event)


def test_the_latest_data_version_of_every_target_is_heard(instance: DagsterInstance) -> None:
    materialize(instance, graph.RECORDS, Partition("tickets"), "old")
    materialize(instance, graph.RECORDS, Partition("tickets"), "new")
    materialize(instance, graph.RECORDS, Partition("refunds"), "r")
    materialize(instance, graph.ADAPTER, CELL, "a")
    materialize(instance, graph.CATALOG, EVERYTHING, "c")
    assert Announcements().latest(instance) == {
        (graph.RECORDS, Partition("tickets")): "new",
        (graph.RECORDS, Partition("refunds")): "r",
        (graph.ADAPTER, CELL): "a",
        (graph.CATALOG, EVERYTHING): "c",
    }


def test_only_assets_that_were_materialized_since_are_asked_for_again(instance: DagsterInstance, asked: list[str]) -> None:
    announcements = Announcements()
    materialize(instance, graph.RECORDS, Partition("tickets"), "1")
    materialize(instance, graph.ADAPTER, CELL, "a")
    first = announcements.latest(instance)
    assert sorted(asked) == ["adapter", "records"]
    assert announcements.latest(instance) == first and len(asked) == 2
    materialize(instance, graph.RECORDS, Partition("tickets"), "2")
    assert announcements.latest(instance) == {**first, (graph.RECORDS, Partition("tickets")): "2"}
    assert asked[2:] == ["records"]


def test_what_was_wiped_is_not_remembered(instance: DagsterInstance) -> None:
    announcements = Announcements()
    materialize(instance, graph.RECORDS, Partition("tickets"), "1")
    materialize(instance, graph.ADAPTER, CELL, "a")
    assert len(announcements.latest(instance)) == 2
    instance.wipe_assets([asset_key(graph.RECORDS)])
    assert announcements.latest(instance) == {(graph.ADAPTER, CELL): "a"}
    materialize(instance, graph.RECORDS, Partition("refunds"), "r")
    assert announcements.latest(instance)[graph.RECORDS, Partition("refunds")] == "r"
    assert (graph.RECORDS, Partition("tickets")) not in announcements.latest(instance)


def test_another_instance_is_another_story(instance: DagsterInstance, tmp_path: Path) -> None:
    announcements = Announcements()
    materialize(instance, graph.RECORDS, Partition("tickets"), "1")
    announcements.latest(instance)
    (tmp_path / "other").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "other"), overrides={"telemetry": {"enabled": False}}) as other:
        assert announcements.latest(other) == {}
        materialize(other, graph.RECORDS, Partition("tickets"), "2")
        assert announcements.latest(other) == {(graph.RECORDS, Partition("tickets")): "2"}
