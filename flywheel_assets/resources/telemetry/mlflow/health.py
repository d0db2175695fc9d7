"""Health: what `flywheel doctor` says of MLflow. Asks the server for its version only; never shows user or password."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from importlib.util import find_spec

import httpx

from flywheel_assets.resources.credentials import unsendable
from flywheel_assets.resources.telemetry.mlflow.address import Address, address_of
from flywheel_assets.settings import Settings

_PACKAGES = ("mlflow", "dagster_mlflow")
_TOKEN, _USER, _PASSWORD = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_ASK_S = 3.0


@dataclass(frozen=True, slots=True)
class Health:
    """How MLflow stands. `advice` is the next step where it is not ok."""

    ok: bool
    found: str
    advice: str = ""


def examine_mlflow(settings: Settings) -> Health:
    """Whether the tracking store can be reached, and of which version client and server are."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        return Health(False, f"not installed: {', '.join(missing)}", "pip install 'flywheel-assets[mlflow]'")
    address = address_of(settings)
    client = importlib.metadata.version("mlflow")
    if address.local is not None:
        made = "" if (address.local / "mlflow.db").is_file() else ", made by the first run"
        return Health(
            True, f"{address.shown}{made}, client {client}; see it with `mlflow ui --backend-store-uri {address.shown}`"
        )
    if not address.is_server:
        return Health(True, f"{address.shown}, client {client}; not asked, it is no server")
    return _server(address, client)


def _server(address: Address, client: str) -> Health:
    if wrong := unsendable(_TOKEN, os.environ.get(_TOKEN)):
        return Health(False, address.shown, wrong)
    token, user, password = (os.environ.get(name) for name in (_TOKEN, _USER, _PASSWORD))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    known = (user or "", password or "") if user and not token else None
    try:
        answer = httpx.get(f"{address.uri}/version", headers=headers, auth=known, timeout=_ASK_S)
    except httpx.HTTPError as error:
        advice = "is the server running, and is telemetry.mlflow.tracking_uri right? Runs go on without it"
        return Health(False, f"{address.shown}: {type(error).__name__}", advice)
    if answer.status_code in (401, 403):
        return Health(False, f"{address.shown} refuses ({answer.status_code})", f"set {_USER} and {_PASSWORD}, or {_TOKEN}")
    if answer.status_code != 200:
        return Health(False, f"{address.shown} answers {answer.status_code}", "is it an MLflow server?")
    server = answer.text.strip()[:20]
    advice = "" if server.partition(".")[0] == client.partition(".")[0] else "other major versions were not tried together"
    return Health(True, f"{address.shown} is MLflow {server}, client {client}", advice)
