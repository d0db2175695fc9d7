"""Probes: the cheapest question each service of API v1 answers, asked once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

import httpx
import nemo_microservices

from flywheel_assets.resources.nemo.errors import NemoError
from flywheel_assets.resources.nemo.v1.connection import Connection
from flywheel_assets.settings import NemoSettings

T = TypeVar("T")
_SHOWN = 50


class Probes:
    """What can be asked of a cluster without changing it. Every probe raises NemoError when it gets no answer."""

    def __init__(self, settings: NemoSettings) -> None:
        self._settings = settings
        self._connection = Connection(settings)

    def entity_namespace(self) -> str:
        """Whether the namespace exists in the Entity Store, as a clause."""

        def look() -> str:
            try:
                self._connection.api.namespaces.retrieve(self._settings.namespace)
            except nemo_microservices.NotFoundError:
                return f"namespace {self._settings.namespace} will be created"
            return f"namespace {self._settings.namespace} exists"

        return self._once(f"Entity Store {self._settings.base_url}/v1/namespaces", look)

    def data_namespace(self) -> str:
        """Whether the namespace exists in the Data Store, as a clause."""
        url = f"{self._settings.datastore_url}/v1/datastore/namespaces/{self._settings.namespace}"

        def look() -> str:
            answer = self._connection.http.get(url)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return f"namespace {self._settings.namespace} will be created"
            answer.raise_for_status()
            return f"namespace {self._settings.namespace} exists"

        return self._once(f"Data Store {url}", look)

    def targets(self) -> set[str]:
        """Names of the customization targets there are."""
        return self._once(
            f"Customizer {self._settings.base_url}/v1/customization/targets",
            lambda: {str(target.name) for target in self._connection.api.customization.targets.list(page_size=_SHOWN)},
        )

    def evaluation_jobs(self) -> int:
        """How many evaluation jobs are listed, up to a page."""
        jobs = self._connection.api.evaluation.jobs
        return self._once(
            f"Evaluator {self._settings.base_url}/v1/evaluation/jobs",
            lambda: len(list(islice(jobs.list(page_size=_SHOWN), _SHOWN))),
        )

    def deployments(self) -> int:
        """How many model deployments are listed, up to a page."""
        deployments = self._connection.api.deployment.model_deployments
        return self._once(
            f"Deployment Management {self._settings.base_url}/v1/deployment/model-deployments",
            lambda: len(list(islice(deployments.list(page_size=_SHOWN), _SHOWN))),
        )

    def served_models(self) -> list[str]:
        """What the NIM proxy lists."""
        url = f"{self._settings.nim_url}/v1/models"
        return self._once(f"NIM proxy {url}", lambda: [str(entry["id"]) for entry in self._connection.get(url)["data"]])

    def nim_version(self) -> str:
        """The release behind the proxy, empty where it does not say."""
        try:
            url = f"{self._settings.nim_url}/v1/version"
            return self._once(url, lambda: str(self._connection.get(url).get("release", "")))
        except NemoError:
            return ""

    def _once(self, what: str, look: Callable[[], T]) -> T:
        try:
            return self._connection.do(what, look, for_s=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NemoError(f"{what}: the answer is not NeMo's ({error}). Is the address right?") from None
