"""Deployment Management and the NIM proxy: a NIM that is up for as long as somebody uses it.

Several runs share one deployment; who lets go last shuts it down. A deployment somebody else made is used and never ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nemo_microservices
from filelock import FileLock
from nemo_microservices.types.deployment import ModelDeployment

from flywheel_assets.resources.nemo.errors import JobFailed, NemoConflict, NemoError, NemoMissing
from flywheel_assets.resources.nemo.ledger import Ledger
from flywheel_assets.resources.nemo.polling import looks
from flywheel_assets.resources.nemo.v1.connection import SHORT_S, Connection
from flywheel_assets.resources.nemo.v1.datastore import Datastore
from flywheel_assets.resources.nemo.v1.jobs import HOME_FIELD
from flywheel_assets.resources.nemo.work import Say
from flywheel_assets.settings import NimImage

KIND = "deployment"
_READY = "ready"
_ENDED = frozenset({"failed", "cancelled"})
_EXISTS = "already exists"
_LISTED = 100


class Deployments:
    """NIMs of one namespace. `home` names this flywheel on what it makes; `locks` is a folder."""

    def __init__(self, connection: Connection, datastore: Datastore, ledger: Ledger, home: str, locks: Path) -> None:
        self._connection, self._datastore, self._ledger = connection, datastore, ledger
        self._home, self._locks = home, locks

    @contextmanager
    def using(self, nim: NimImage, owner: str, say: Say) -> Iterator[None]:
        """The NIM deployed, or being deployed, while the block runs: see `await_model`. Waits for the GPU budget."""
        if not nim.is_deployed_here:
            yield
            return
        name = nim.deployment_name
        budget = self._connection.settings.gpu_budget
        using = self._ledger.using(KIND, name, owner=owner, weight=nim.gpus or 0, budget=budget, announce=say)
        try:
            with using:
                with self._alone(name):
                    self._ensure(nim, say)
                yield
        finally:
            self._end_if_unused(name, say)

    def await_model(self, nim: NimImage, model: str, say: Say) -> None:
        """Wait until the NIM is ready and lists the model: its base, or an adapter that has to sync first.

        Raises JobFailed when it fails, or takes longer than `nemo.deploy_timeout_minutes` and `nemo.sync_timeout_minutes`.
        """
        timeout = 60 * self._connection.settings.sync_timeout_minutes
        ready_at: float | None = None
        for _ in looks(self._connection.settings.poll_longest_s):
            if nim.is_deployed_here:
                # At every look: a deployment that is deleted meanwhile would never list anything.
                self._await_ready(nim, say)
            if ready_at is None:
                ready_at = time.monotonic()
                say(f"{model}: waiting until the NIM proxy lists it")
            listed = self.served_models()
            if model in listed:
                return
            if time.monotonic() - ready_at > timeout:
                raise JobFailed(
                    f"{model} was not listed by {self._connection.settings.nim_url}/v1/models after {timeout / 60:g} "
                    f"minutes (nemo.sync_timeout_minutes); listed are {', '.join(listed) or 'none'}."
                )

    def served_models(self) -> list[str]:
        """What the NIM proxy lists."""
        url = f"{self._connection.settings.nim_url}/v1/models"
        content = self._connection.do(f"GET {url}", lambda: self._connection.get(url))
        return [str(entry["id"]) for entry in content.get("data", ())]

    def rediscover(self) -> None:
        """Write down deployments of this flywheel that its ledger does not know: it may have been lost."""
        deployments = self._connection.api.deployment.model_deployments
        for one in self._connection.do("list of deployments", lambda: list(deployments.list(page_size=_LISTED))):
            here = one.namespace == self._datastore.namespace and self._is_ours(one)
            if here and one.name and self._ledger.thing(KIND, one.name) is None:
                self._ledger.note(KIND, one.name)

    def sweep(self, name: str, say: Say) -> bool:
        """End a deployment no living run uses; whether it is gone."""
        return self._end_if_unused(name, say)

    def _await_ready(self, nim: NimImage, say: Say) -> None:
        name, timeout = nim.deployment_name, 60 * self._connection.settings.deploy_timeout_minutes
        said = ""
        for waited in looks(self._connection.settings.poll_longest_s):
            deployment = self._retrieve(name)
            if deployment is None:
                # A deletion that somebody asked for earlier, and that was carried out only now.
                say(f"deployment {name} was deleted while it was waited for: requested again")
                with self._alone(name):
                    self._ensure(nim, say)
                continue
            status, why = deployment.status_details.status, deployment.status_details.description or ""
            if status == _READY:
                return
            if status in _ENDED:
                raise JobFailed(
                    f"deployment {name} is {status}: {why or 'no reason given'}. See the NIM's log in the cluster."
                )
            if waited > timeout:
                raise JobFailed(
                    f"deployment {name} is {status} after {timeout / 60:g} minutes (nemo.deploy_timeout_minutes): "
                    f"{why or 'no reason given'}. Are {nim.gpus} GPUs free, and does image tag '{nim.tag}' exist?"
                )
            if (now := f"{status}: {why}") != said:
                say(f"deployment {name} is {now}")
                said = now

    def _ensure(self, nim: NimImage, say: Say) -> None:
        """A deployment of this name that runs this image: ours or somebody else's, else a new one."""
        name = nim.deployment_name
        found = self._retrieve(name)
        if found is not None and self._is_ours(found):
            self._ledger.note(KIND, name)
            if _runs(found, nim) and found.status_details.status not in _ENDED:
                say(f"deployment {name} is there: taken up")
                return
            if len(self._ledger.holders(KIND, name)) > 1:
                raise NemoConflict(
                    f"deployment {name} runs another image than '{nim.tag}' for other runs. Wait for their end."
                )
            self._delete(name)
        elif found is not None:
            if not _runs(found, nim):
                raise NemoConflict(
                    f"deployment {self._datastore.namespace}/{name} is somebody else's and runs another image than "
                    f"'{nim.tag}'. Name its tag in `nims`, or another `nemo.namespace`."
                )
            say(f"deployment {name} is somebody else's: used, and never ended by this flywheel")
            return
        self._datastore.ensure_namespace()
        self._ledger.note(KIND, name)
        self._connection.do(f"deployment {name}", lambda: self._create(nim), find=lambda: self._retrieve(name))
        say(f"deployment {name} requested ({nim.gpus} GPUs)")

    def _create(self, nim: NimImage) -> ModelDeployment:
        body = deployment_body(nim, self._datastore.namespace, self._home)
        try:
            return self._connection.api.deployment.model_deployments.create(**body)
        except nemo_microservices.APIStatusError as error:
            # Some versions answer 500 for a name that is taken.
            if _EXISTS in str(error.body) and (found := self._retrieve(nim.deployment_name)) is not None:
                return found
            raise

    def _end_if_unused(self, name: str, say: Say) -> bool:
        with self._alone(name):
            if self._ledger.thing(KIND, name) is None or self._ledger.holders(KIND, name):
                return False
            try:
                self._delete(name, for_s=SHORT_S)
            except NemoError as error:
                say(f"deployment {name} could not be ended and is left to the janitor: {error}")
                return False
            say(f"deployment {name} shut down")
            return True

    def _delete(self, name: str, *, for_s: float | None = None) -> None:
        def delete() -> None:
            self._connection.api.deployment.model_deployments.delete(name, namespace=self._datastore.namespace)

        # Gone already is what was wanted.
        with suppress(NemoMissing):
            self._connection.do(f"deleting deployment {name}", delete, for_s=for_s)
        self._ledger.forget(KIND, name)

    def _retrieve(self, name: str) -> ModelDeployment | None:
        def look() -> ModelDeployment | None:
            try:
                return self._connection.api.deployment.model_deployments.retrieve(name, namespace=self._datastore.namespace)
            except nemo_microservices.NotFoundError:
                return None

        return self._connection.do(f"deployment {name}", look)

    def _is_ours(self, deployment: ModelDeployment) -> bool:
        return (deployment.custom_fields or {}).get(HOME_FIELD) == self._home

    def _alone(self, name: str) -> FileLock:
        """One process at a time starts or ends a deployment; waiting for it to be ready is nobody's secret."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self._locks / f"nemo-{name}.lock")


def deployment_body(nim: NimImage, namespace: str, home: str) -> dict[str, Any]:
    """What a model deployment is made of."""
    deployment: dict[str, Any] = {
        "image_name": f"{nim.registry_base}/{nim.model_name}",
        "image_tag": nim.tag,
        "gpu": nim.gpus,
        "additional_envs": dict(nim.additional_envs),
        **({} if nim.pvc_size is None else {"pvc_size": nim.pvc_size}),
    }
    return {
        "name": nim.deployment_name,
        "namespace": namespace,
        "config": {"model": nim.model_name, "nim_deployment": deployment},
        "custom_fields": {HOME_FIELD: home},
    }


def _runs(deployment: ModelDeployment, nim: NimImage) -> bool:
    """Whether a deployment serves this model from this image; one that names a configuration elsewhere is believed."""
    config = deployment.config
    if isinstance(config, str) or config.nim_deployment is None:
        return True
    return config.model == nim.model_name and config.nim_deployment.image_tag == nim.tag
