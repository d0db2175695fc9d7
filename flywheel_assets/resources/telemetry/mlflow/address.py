"""Where MLflow is: the tracking URI that holds, and the page on which a person sees a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.settings import Settings

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True, slots=True)
class Address:
    """A tracking URI, and the folder of the local store where it is one of ours; `pages` is what links begin with."""

    uri: str
    pages: str
    local: Path | None = None

    @property
    def is_server(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The URI as it may be shown: without user and password."""
        return without_credentials(self.uri)

    def page_of(self, experiment_id: str, run_id: str) -> str:
        """The page of a run."""
        return f"{self.pages}/#/experiments/{experiment_id}/runs/{run_id}"


def address_of(settings: Settings) -> Address:
    """The tracking URI of flywheel.yaml, else of the environment, else a SQLite file under FLYWHEEL_HOME."""
    mlflow = settings.telemetry.mlflow
    # A page needs a server: for a store that is none, somebody starts `mlflow ui` on it.
    pages = mlflow.ui_url.rstrip("/")
    uri = (mlflow.tracking_uri or os.environ.get(TRACKING_URI_VARIABLE) or "").rstrip("/")
    if not uri:
        folder = settings.home.resolve() / "mlflow"
        return Address(f"sqlite:///{folder / 'mlflow.db'}", pages, folder)
    address = Address(uri, pages)
    return Address(uri, address.shown) if address.is_server else address
