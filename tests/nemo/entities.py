"""Entity Store of the NeMo test server: namespaces, datasets and models, by name within a namespace."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from nemo_microservices.types import DatasetCreateParams, DatasetUpdateParams, NamespaceCreateParams

from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, checked, now_text, page, parameters

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer

_NAMESPACE = parameters(NamespaceCreateParams)
_DATASET = parameters(DatasetCreateParams)
_DATASET_UPDATE = parameters(DatasetUpdateParams)


class EntityStore:
    """Knows a dataset by its name only: the files are the Data Store's, and are not looked at before somebody uses them."""

    def __init__(self, server: NemoServer) -> None:
        self._server = server
        self.namespaces: dict[str, Json] = {}
        self.datasets: dict[str, Json] = {}
        self.models: dict[str, Json] = {}

    def routes(self, routes: Routes) -> None:
        routes.add("POST", "/v1/namespaces", self._create_namespace)
        routes.add("GET", "/v1/namespaces", lambda asked: Answered(page(list(self.namespaces.values()), asked)))
        routes.add("GET", "/v1/namespaces/{id}", lambda asked: Answered(_found(self.namespaces, asked.arguments["id"])))
        routes.add("POST", "/v1/datasets", self._create_dataset)
        routes.add("GET", "/v1/datasets", lambda asked: Answered(page(list(self.datasets.values()), asked)))
        routes.add("GET", "/v1/datasets/{namespace}/{name}", lambda asked: Answered(_found(self.datasets, _name(asked))))
        routes.add("PATCH", "/v1/datasets/{namespace}/{name}", self._update_dataset)
        routes.add("DELETE", "/v1/datasets/{namespace}/{name}", self._delete_dataset)
        routes.add("GET", "/v1/models", lambda asked: Answered(page(list(self.models.values()), asked)))
        routes.add("GET", "/v1/models/{namespace}/{name}", lambda asked: Answered(_found(self.models, _name(asked))))

    def require_namespace(self, name: str | None) -> str:
        if name not in self.namespaces:
            raise Refused(404, f"namespace '{name}' does not exist")
        return str(name)

    def dataset(self, reference: str | Json) -> Json:
        """The dataset a job names: `namespace/name` or `{"name", "namespace"}`."""
        name = reference if isinstance(reference, str) else f"{reference.get('namespace')}/{reference.get('name')}"
        return _found(self.datasets, name)

    def _create_namespace(self, asked: Asked) -> Answered:
        body = checked(*_NAMESPACE, asked.json())
        if body.get("id") in self.namespaces:
            raise Refused(409, f"namespace '{body['id']}' already exists")
        self.namespaces[body["id"]] = {**body, "created_at": now_text()}
        return Answered(self.namespaces[body["id"]], 201)

    def _create_dataset(self, asked: Asked) -> Answered:
        body = checked(*_DATASET, asked.json())
        name = f"{self.require_namespace(body.get('namespace'))}/{body['name']}"
        if name in self.datasets:
            raise Refused(409, f"dataset '{name}' already exists")
        self.datasets[name] = {**body, "id": f"dataset-{uuid.uuid4().hex[:12]}", "created_at": now_text()}
        return Answered(self.datasets[name], 201)

    def _update_dataset(self, asked: Asked) -> Answered:
        body = checked(*_DATASET_UPDATE, asked.json())
        dataset = _found(self.datasets, _name(asked))
        dataset |= {**body, "updated_at": now_text()}
        return Answered(dataset)

    def _delete_dataset(self, asked: Asked) -> Answered:
        _found(self.datasets, _name(asked))
        del self.datasets[_name(asked)]
        return Answered({"message": "Resource deleted successfully.", "id": _name(asked), "deleted_at": now_text()})


def _name(asked: Asked) -> str:
    return f"{asked.arguments['namespace']}/{asked.arguments['name']}"


def _found(store: dict[str, Json], name: str) -> Json:
    if name not in store:
        raise Refused(404, f"'{name}' was not found")
    return store[name]
