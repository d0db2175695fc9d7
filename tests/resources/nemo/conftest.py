"""A NeMo test server, and the resources of the package on it with strict validation of every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.nemo import polling
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.settings import NemoSettings, Nim
from tests.nemo.server import NemoServer

MODEL = "meta/llama-3.2-1b-instruct"
TARGET = f"{MODEL}@2.0"

Make = Callable[..., NemoV1]


def nim(**changed: Any) -> Nim:
    """A NIM as a list of the reference workflow has it."""
    content = {
        "model_name": MODEL,
        "context_length": 8192,
        "gpus": 1,
        "pvc_size": "25Gi",
        "tag": "1.8.3",
        "customization_enabled": True,
        "customizer_configs": {"target": TARGET, "gpus": 1, "max_seq_length": 8192},
    }
    return Nim.model_validate({**content, **changed})


@pytest.fixture
def server() -> Iterator[NemoServer]:
    with NemoServer() as server:
        server.customizer.targets[TARGET] = MODEL
        yield server


@pytest.fixture
def make(server: NemoServer, tmp_path: Path) -> Make:
    """Makes the resources; `home` is another flywheel's, the rest are keys of `nemo`."""

    def make(home: str = "home", **settings: Any) -> NemoV1:
        content = {**server.settings, "retry_s": 5, **settings}
        return NemoV1(NemoSettings.model_validate(content), tmp_path / home, strict=True)

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks ten times as often as the product does, so that tests of other things do not wait."""
    monkeypatch.setattr(polling, "SHORTEST_S", 0.1)
