"""Data Store and Entity Store: a namespace, files in a repository, and the dataset that names them.

A dataset is named by its content and registered after its last file: one that is registered is complete, and is never
uploaded again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import nemo_microservices
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from flywheel_assets.resources.nemo.v1.connection import Connection

_PROJECT = "flywheel"
_CONFLICT = 409
# The services are known to answer either for a name that is taken.
_TAKEN = (409, 422)


class Datastore:
    """Datasets of one namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._settled = False

    @property
    def namespace(self) -> str:
        """Where everything is made."""
        return self._connection.settings.namespace

    def ensure_namespace(self) -> None:
        """The namespace exists in both stores; asked once a process."""
        if self._settled:
            return
        self._connection.do(f"namespace '{self.namespace}' in the Entity Store", self._ensure_entity_namespace)
        self._connection.do(f"namespace '{self.namespace}' in the Data Store", self._ensure_data_namespace)
        self._settled = True

    def publish(self, kind: str, files: Mapping[str, bytes]) -> str:
        """The name of the dataset that holds these files, by path; `kind` is part of the name, such as `train`."""
        digest = hashlib.sha256()
        for path, content in sorted(files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        name = f"flywheel-{kind}-{digest.hexdigest()[:16]}"
        if self._is_registered(name):
            return name
        self.ensure_namespace()
        repository = f"{self.namespace}/{name}"
        self._connection.do(f"repository {repository}", lambda: self._ensure_repository(repository))
        self._connection.do(f"files of {repository}", lambda: self._upload(repository, files))
        self._connection.do(f"dataset {repository}", lambda: self._register(repository, name))
        return name

    def url(self, dataset: str, path: str = "") -> str:
        """How a job names a dataset, or one file of it."""
        return f"hf://datasets/{self.namespace}/{dataset}" + (f"/{path}" if path else "")

    def _is_registered(self, name: str) -> bool:
        def look() -> bool:
            try:
                self._connection.api.datasets.retrieve(name, namespace=self.namespace)
            except nemo_microservices.NotFoundError:
                return False
            return True

        return self._connection.do(f"dataset {self.namespace}/{name}", look)

    def _ensure_entity_namespace(self) -> None:
        with suppress(nemo_microservices.ConflictError):
            try:
                self._connection.api.namespaces.retrieve(self.namespace)
            except nemo_microservices.NotFoundError:
                self._connection.api.namespaces.create(id=self.namespace)

    def _ensure_data_namespace(self) -> None:
        url = f"{self._connection.settings.datastore_url}/v1/datastore/namespaces"
        # A form, not JSON: the one call of the workflow that is.
        answer = self._connection.http.post(url, data={"namespace": self.namespace})
        if answer.status_code not in _TAKEN:
            answer.raise_for_status()

    def _ensure_repository(self, repository: str) -> None:
        try:
            self._connection.hub.create_repo(repository, repo_type="dataset")
        except HfHubHTTPError as error:
            # Not `exist_ok`: the client then looks for a URL in the refusal, which this server need not give.
            if error.response.status_code != _CONFLICT:
                raise

    def _upload(self, repository: str, files: Mapping[str, bytes]) -> None:
        hub: Any = self._connection.hub
        # As open files: bytes and paths of LFS size would go the Xet way, which the Data Store does not speak.
        added = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in sorted(files.items())]
        try:
            hub.create_commit(repository, added, commit_message="flywheel dataset", repo_type="dataset")
        except HfHubHTTPError:
            raise
        except ValueError:
            # Newer clients take a commit's URL apart and refuse forms they do not know, after all is done.
            if set(files) - set(hub.list_repo_files(repository, repo_type="dataset")):
                raise

    def _register(self, repository: str, name: str) -> None:
        with suppress(nemo_microservices.ConflictError):
            self._connection.api.datasets.create(
                files_url=f"hf://datasets/{repository}", name=name, namespace=self.namespace, project=_PROJECT
            )
