"""`flywheel doctor` on a cluster: each address, its version, the namespace, and what each NIM needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.nemo.health import Health, examine_cluster
from flywheel_assets.settings import parse_settings
from tests.nemo.server import NemoServer
from tests.resources.nemo.conftest import MODEL, TARGET, Make


def examine(server: NemoServer, nims: list[dict[str, Any]] | None = None, **nemo: Any) -> dict[str, Health]:
    trained = {"model_name": MODEL, "gpus": 1, "tag": "1", "customization_enabled": True}
    content = {
        "platform": "nemo",
        "nemo": {**server.settings, **nemo},
        "nims": nims or [{**trained, "customizer_configs": {"target": TARGET}}],
    }
    settings = parse_settings(content, home=Path("home"), root=Path())
    return {one.what: one for one in examine_cluster(settings)}


def test_a_cluster_that_is_well_is_said_to_be_with_its_versions(server: NemoServer, make: Make) -> None:
    found = examine(server)
    assert all(one.ok for one in found.values()), found
    assert "nemo_microservices 1.5.0" in found["nemo packages"].found
    assert "version 1.8.3" in found["nim proxy"].found
    assert "namespace dfwbp will be created" in found["entity store"].found
    make().datastore.ensure_namespace()
    assert "namespace dfwbp exists" in examine(server)["data store"].found


def test_looking_changes_nothing(server: NemoServer) -> None:
    examine(server)
    assert {call.method for call in server.calls} == {"GET"}


def test_each_address_that_does_not_answer_is_named(server: NemoServer) -> None:
    found = examine(server, nim_url="http://127.0.0.1:9")
    assert [what for what, one in found.items() if not one.ok] == ["nim proxy"]
    assert "127.0.0.1:9/v1/models" in found["nim proxy"].advice
    swapped = examine(server, base_url=server.nim_url)
    assert not swapped["customizer"].ok
    assert swapped["nim proxy"].ok


def test_a_target_that_does_not_exist_is_named_with_those_that_do(server: NemoServer) -> None:
    server.customizer.targets = {"meta/other@1": "meta/other"}
    found = examine(server)["candidate meta-llama-3-2-1b-instruct"]
    assert not found.ok
    assert "meta/other@1" in found.advice


def test_a_nim_that_should_run_already_and_does_not_is_named(server: NemoServer) -> None:
    standing = [{"model_name": "meta/standing"}]
    assert not examine(server, standing)["candidate meta-standing"].ok
    server.deployments.standing_models.add("meta/standing")
    assert examine(server, standing)["candidate meta-standing"].ok


def test_a_refused_key_is_told_and_not_shown(server: NemoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMO_KEY", "s3cret")
    server.key = "another"
    found = examine(server, api_key_env="NEMO_KEY")
    assert "401" in found["customizer"].advice
    assert "s3cret" not in repr(found)
