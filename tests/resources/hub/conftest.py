"""A hub that listens, something to publish, and no waiting between tries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.hub import Payload
from tests.hub_payloads import make_payload
from tests.hub_server import HubServer


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return make_payload(tmp_path / "adapter")


class _Impatient:
    """`time` without waiting."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Not at all."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is waited between tries is not asked here, only how often."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", _Impatient())
    monkeypatch.setattr("flywheel_assets.resources.hub.endpoint.time", _Impatient())
