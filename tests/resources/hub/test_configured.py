"""Which hub is meant, and what `flywheel doctor` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.doctor import Finding, examine
from flywheel_assets.resources.hub import place_of, repository_of
from flywheel_assets.settings import Settings, SettingsError, parse_settings
from tests.hub_server import WRITE, HubServer


def settings(tmp_path: Path, **hub: Any) -> Settings:
    (tmp_path / "small.gguf").write_text("small")
    content = {"candidates": [{"id": "small", "model": "small.gguf"}], "hub": hub}
    return parse_settings(content, home=tmp_path / "home", root=tmp_path)


def hub_of(settings: Settings) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.what == "hub"]


def test_doctor_says_whose_key_it_is_and_where_it_leads(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", WRITE)
    configured = settings(tmp_path, enabled=True, namespace="acme")
    (found,) = hub_of(configured)
    assert found.ok and server.url in found.found and "key of ada" in found.found and "private" in found.found
    monkeypatch.setenv("HF_TOKEN", "hf_nobody_knows_this_one")
    (refused,) = hub_of(configured)
    assert not refused.ok and "is not accepted" in refused.advice
    assert "hf_nobody_knows_this_one" not in refused.found + refused.advice
    assert hub_of(settings(tmp_path)) == []


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        ({"enabled": True}, "needs either a `namespace` on the hub or a local `folder`"),
        ({"enabled": True, "namespace": "acme", "folder": "shelf"}, "needs either"),
        ({"namespace": "https://hub/acme"}, "is no name of a user or organization"),
        ({"name": "flywheel-{candidate}"}, "must hold {workload}"),
        ({"name": "{workload}-{secret}"}, "must hold {workload}"),
        ({"name": "../{workload}"}, "must hold {workload}"),
        ({"name": "{workload"}, "cannot be read"),
    ],
)
def test_a_hub_that_cannot_be_meant_is_refused_when_the_file_is_read(tmp_path: Path, hub: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, **hub)
    assert says in str(refused.value)


def test_a_password_in_the_address_is_kept_with_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:s3cret@hub.example/api/")
    assert place_of(settings(tmp_path, enabled=True, namespace="acme")) == "https://hub.example/api#acme"


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    configured = settings(tmp_path, enabled=True, namespace="acme")
    one, other = (repository_of(configured, "w" * 63, "c" * 62 + end) for end in "ab")
    assert one != other and one.startswith("acme/flywheel-www")
    assert len(one.removeprefix("acme/")) <= 96
    assert repository_of(configured, "router", "small") == "acme/flywheel-router-small"
