from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.doctor import examine
from flywheel_assets.settings import parse_settings
from tests.faulty_proxy import FaultyProxy, locked
from tests.mlflow_server import free_port


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACKING_URI", "TRACKING_TOKEN", "TRACKING_USERNAME", "TRACKING_PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


def finding(home: Path, **mlflow: Any) -> Any:
    content = {"candidates": [{"id": "a", "model": "a.gguf"}], "telemetry": {"mlflow": mlflow}}
    (home / "a.gguf").write_text("a")
    found = examine(parse_settings(content, home=home, root=home))
    return next((one for one in found if one.what == "MLflow"), None)


def test_doctor_says_how_to_look_at_a_local_store(tmp_path: Path) -> None:
    assert finding(tmp_path) is None
    found = finding(tmp_path, enabled=True)
    assert found.ok and f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow/mlflow.db" in found.found


def test_doctor_says_that_a_server_is_down_and_shows_no_password(tmp_path: Path) -> None:
    port = free_port()
    found = finding(tmp_path, enabled=True, tracking_uri=f"http://ada:s3cret@127.0.0.1:{port}")
    assert not found.ok and f"http://127.0.0.1:{port}" in found.found and "s3cret" not in str(found)
    assert "tracking_uri" in found.advice


def test_doctor_names_the_version_and_what_a_server_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FaultyProxy(f"http://127.0.0.1:{free_port()}")
    try:
        server.fault = locked("Bearer t0ken")
        refused = finding(tmp_path, enabled=True, tracking_uri=server.url)
        assert not refused.ok and "MLFLOW_TRACKING_TOKEN" in refused.advice
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
        server.forward = lambda *_: (200, b"3.17.2", "text/plain")  # type: ignore[method-assign]
        assert "is MLflow 3.17.2, client" in finding(tmp_path, enabled=True, tracking_uri=server.url).found
    finally:
        server.close()
