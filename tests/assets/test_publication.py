"""An approved adapter on the hub: from a person's word to a revision that others can fetch, and back in the catalog."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
import yaml
from dagster import DagsterInstance

from flywheel_assets.assets.distribution import CATALOG_FILE
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.cli_promote import act
from flywheel_assets.core.graph import ADAPTER, CATALOG, DECISION, EVERYTHING, PUBLISHED_ADAPTER, Partition
from flywheel_assets.core.rows import Json
from flywheel_assets.partitions import partition_key
from flywheel_assets.resources.artifacts import Artifact, sha256_of_file
from flywheel_assets.resources.seals import seal_of
from flywheel_assets.seals import SEAL_TAG, VERSION_TAG
from tests.assets.conftest import Bench
from tests.fake_platform import talkative
from tests.hub_payloads import sha256
from tests.hub_server import READ, SIGNATURE, WRITE, HubServer
from tests.instances import local_instance
from tests.nemo.wire import Fault

REPO = "acme/flywheel-tickets-small"
NAME = f"{PUBLISHED_ADAPTER} of tickets"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", WRITE)
        # What the fake platform writes for weights is short.
        server.lfs_from = 60
        yield server


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the decision on `tickets` promotes the customized model; made once, and copied for each test."""
    folder = tmp_path_factory.mktemp("decided")
    with open_instance(folder) as instance:
        bench = furnished(folder, instance)
        bench.ingest(300)
        assert bench.turn().ok
        assert bench.flywheel.artifacts.require(DECISION, Partition("tickets")).summary["variant"] == "customized"
    return folder


@pytest.fixture
def promoted(decided: Path, tmp_path: Path) -> Iterator[Bench]:
    """That flywheel, with a hub to publish to."""
    folder = tmp_path / "flywheel"
    shutil.copytree(decided, folder)
    with open_instance(folder) as instance:
        bench = furnished(folder, instance)
        bench.content["hub"] = {"enabled": True, "namespace": "acme"}
        yield bench


def open_instance(folder: Path) -> DagsterInstance:
    return local_instance(folder)


def furnished(folder: Path, instance: DagsterInstance) -> Bench:
    bench = Bench(folder, instance)
    bench.platform.answers = talkative
    bench.content["split"] = {"eval_size": 100, "min_total_records": 50}
    bench.content["candidates"] = [
        {"id": "small", "model": "small.gguf", "license": "apache-2.0", "base_model": "acme/small"}
    ]
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.2}]}
    return bench


def approves(bench: Bench) -> None:
    assert act(bench.instance, bench.flywheel.settings, "approve", "tickets", who="Ada", why="call me at ada@x.org")["ok"]


def published(bench: Bench) -> Artifact:
    return bench.flywheel.artifacts.require(PUBLISHED_ADAPTER, Partition("tickets"))


def serving(bench: Bench) -> Json:
    artifact = bench.flywheel.artifacts.require(CATALOG, EVERYTHING)
    found: Json = orjson.loads((artifact.path / CATALOG_FILE).read_bytes())["workloads"]["tickets"]["serving"]
    return found


def by_hand(bench: Bench) -> Any:
    return dg.materialize(
        list(bench.defs.resolve_asset_graph().assets_defs),
        selection=[asset_key(PUBLISHED_ADAPTER)],
        partition_key="tickets",
        instance=bench.instance,
        raise_on_error=False,
    )


def test_nothing_leaves_before_a_person_approves(promoted: Bench, server: HubServer) -> None:
    assert promoted.turn().materialized == [NAME, "model_catalog of everything"]
    assert published(promoted).state == "skipped"
    assert "nobody approved" in str(published(promoted).reason)
    assert server.calls == []


def test_an_approved_adapter_is_published_with_its_evidence(promoted: Bench, server: HubServer) -> None:
    approves(promoted)
    report = promoted.turn()
    assert report.ok and report.materialized == [NAME, "model_catalog of everything"]
    repository, artifact = server.repositories[REPO], published(promoted)
    decision = promoted.flywheel.artifacts.require(DECISION, Partition("tickets"))
    assert repository.private and repository.tags == {f"decision-{decision.version}": artifact.summary["revision"]}
    adapter = promoted.flywheel.artifacts.require(ADAPTER, Partition("tickets", "small"))
    weights = (adapter.path / "adapter" / "adapter_model.safetensors").read_bytes()
    assert repository.files["adapter_model.safetensors"] == weights
    assert "adapter_model.safetensors" in repository.large
    assert {name: sha256(content) for name, content in repository.files.items()} == {
        name: file["sha256"] for name, file in artifact.summary["files"].items()
    }
    front = yaml.safe_load(repository.files["README.md"].decode().split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["base_model"] == "acme/small"
    assert promoted.turn().materialized == []


def test_the_catalog_names_the_revision_to_fetch(promoted: Bench, server: HubServer) -> None:
    approves(promoted)
    assert "hub" not in serving(promoted)
    promoted.turn()
    assert serving(promoted)["hub"] == {
        "repository": REPO,
        "revision": server.repositories[REPO].commits[-1],
        "tag": f"decision-{serving(promoted)['decision']}",
    }


def test_nothing_of_a_row_and_nobody_s_name_leaves(promoted: Bench, server: HubServer) -> None:
    approves(promoted)
    promoted.turn()
    texts = b"".join(content for name, content in server.repositories[REPO].files.items())
    assert "prefix.json" not in server.repositories[REPO].files
    for private in (b"Ada", b"ada@x.org", b"refund_order", str(promoted.folder).encode(), b'messages":'):
        assert private not in texts


def test_the_prefix_goes_where_that_is_asked_for(promoted: Bench, server: HubServer) -> None:
    promoted.content["hub"] = {"enabled": True, "namespace": "acme", "include_prefix": True}
    approves(promoted)
    assert promoted.turn().ok
    prefix = orjson.loads(server.repositories[REPO].files["prefix.json"])
    assert prefix.keys() == {"messages"} and prefix["messages"]
    # Switched off again, it is gone from where people look first.
    promoted.content["hub"] = {"enabled": True, "namespace": "acme"}
    assert promoted.turn().ok
    assert "prefix.json" not in server.repositories[REPO].files


def test_a_second_materialization_uploads_nothing(promoted: Bench, server: HubServer) -> None:
    approves(promoted)
    promoted.turn()
    first = published(promoted)
    server.calls.clear()
    assert by_hand(promoted).success
    # Another decision about the same adapter: looked at again, and nothing to send.
    promoted.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.25}]}
    promoted.turn()
    assert published(promoted).summary["revision"] == first.summary["revision"]
    assert published(promoted).data_version == first.data_version
    assert {call.method for call in server.calls} == {"GET"}


def test_a_hub_that_is_down_stops_neither_the_catalog_nor_the_next_try(
    promoted: Bench, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    approves(promoted)
    monkeypatch.setattr("flywheel_assets.resources.hub.endpoint._PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    report = promoted.turn()
    assert not report.ok and "could not be reached" in str(report.failures)
    assert serving(promoted)["candidate"] == "small" and "hub" not in serving(promoted)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert promoted.turn().ok
    assert serving(promoted)["hub"]["repository"] == REPO


def test_no_key_and_no_signed_address_is_in_what_dagster_keeps(
    promoted: Bench, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = "hf_nobody_knows_this_one"
    approves(promoted)
    said = []
    # A server that quotes the key it refuses; a key without rights; an address of an upload that is refused.
    for token in (unknown, READ, WRITE):
        monkeypatch.setenv("HF_TOKEN", token)
        server.faults = [Fault(path="/lfs/", method="PUT", status=403)]
        said.append(str(promoted.turn().failures))
    assert "is not accepted" in said[0] and "may not write there" in said[1] and "may not write there" in said[2]
    kept = "".join(str(promoted.instance.all_logs(run.run_id)) for run in promoted.instance.get_runs())
    assert "may not write there" in kept
    for secret in (unknown, READ, WRITE, SIGNATURE.partition("=")[2]):
        assert secret not in kept and not any(secret in text for text in said)


def published_like_this(bench: Bench, adapter: Artifact, summary: dict[str, str]) -> None:
    """As if a version had been published as it lies there now, and with that in its summary."""
    manifest = orjson.loads((adapter.path / "manifest.json").read_bytes())
    manifest["summary"] |= summary
    for name in manifest["files"]:
        file = adapter.path / name
        manifest["files"][name] = {"sha256": sha256_of_file(file), "bytes": file.stat().st_size}
    (adapter.path / "manifest.json").write_bytes(orjson.dumps(manifest))
    tags = {VERSION_TAG: adapter.version, SEAL_TAG: seal_of(adapter), "dagster/data_version": adapter.data_version}
    event = dg.AssetMaterialization(asset_key(ADAPTER), partition=partition_key(adapter.partition), tags=tags)
    bench.instance.report_runless_asset_event(event)


def test_what_must_not_leave_fails_the_check_and_nothing_is_sent(promoted: Bench, server: HubServer) -> None:
    adapter = promoted.flywheel.artifacts.require(ADAPTER, Partition("tickets", "small"))
    template = adapter.path / "adapter" / "chat_template.jinja"
    template.write_text("{# written by ada@x.org #}{{ messages }}")
    published_like_this(promoted, adapter, {})
    approves(promoted)
    report = promoted.turn()
    assert "chat_template.jinja holds 1 value of the kind `email`" in str(report.failures)
    assert server.calls == []
    (check,) = promoted.instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), limit=1
    )
    evaluation = check.event_log_entry.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    assert evaluation.check_name == "clean" and not evaluation.passed


def test_what_lies_there_otherwise_fails_the_check_and_is_sent_again(promoted: Bench, server: HubServer) -> None:
    approves(promoted)

    def lose_the_weights() -> None:
        server.after_tag = lambda: None
        server.repositories[REPO].files.pop("adapter_model.safetensors")

    server.after_tag = lose_the_weights
    assert "lacks adapter_model.safetensors" in str(promoted.turn().failures)
    assert promoted.turn().ok
    assert "adapter_model.safetensors" in server.repositories[REPO].files
    assert published(promoted).summary["sent"] == ["adapter_model.safetensors"]


def test_a_rollback_brings_the_earlier_adapter_back_to_the_front(promoted: Bench, server: HubServer) -> None:
    approves(promoted)
    promoted.turn()
    first = published(promoted)
    before = dict(server.repositories[REPO].files)
    promoted.ingest(300, seed=11)
    promoted.turn()
    approves(promoted)
    promoted.turn()
    assert published(promoted).summary["tag"] != first.summary["tag"]
    act(promoted.instance, promoted.flywheel.settings, "rollback", "tickets", who="Ada", why="worse")
    server.received = 0
    promoted.turn()
    assert published(promoted).summary["revision"] == first.summary["revision"] == serving(promoted)["hub"]["revision"]
    assert server.repositories[REPO].files == before and server.received == 0
    # With nobody approved, what was published stays where it is.
    act(promoted.instance, promoted.flywheel.settings, "rollback", "tickets", who="Ada", why="not at all")
    promoted.turn()
    assert published(promoted).state == "skipped" and server.repositories[REPO].files == before


def test_an_adapter_that_lies_in_a_cluster_is_skipped_by_its_name(promoted: Bench, server: HubServer) -> None:
    adapter = promoted.flywheel.artifacts.require(ADAPTER, Partition("tickets", "small"))
    published_like_this(promoted, adapter, {"remote_model": "dfwbp/small@1"})
    approves(promoted)
    assert promoted.turn().ok
    assert published(promoted).state == "skipped" and "dfwbp/small@1" in str(published(promoted).reason)
    assert server.calls == []


def test_a_folder_will_do(promoted: Bench) -> None:
    promoted.content["hub"] = {"enabled": True, "folder": "shelf"}
    approves(promoted)
    assert promoted.turn().ok
    shelf = promoted.folder / "shelf" / "flywheel-tickets-small" / "main"
    assert (shelf / "README.md").is_file() and (shelf / "adapter_model.safetensors").is_file()
    assert published(promoted).summary["repository"] == "flywheel-tickets-small"


def test_without_a_hub_the_asset_is_planned_nowhere_and_by_hand_says_why(promoted: Bench) -> None:
    promoted.content["hub"] = {}
    approves(promoted)
    assert NAME not in promoted.turn().materialized
    assert by_hand(promoted).success
    assert published(promoted).state == "skipped" and "hub.enabled" in str(published(promoted).reason)
