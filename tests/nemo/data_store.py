"""Data Store of the NeMo test server: namespaces by form, and what `HfApi` needs for dataset repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hub_repositories import Repositories
from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, now_text

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer


class DataStore(Repositories):
    """Dataset repositories, each in a namespace that exists."""

    def __init__(self, server: NemoServer) -> None:
        super().__init__(lambda: server.datastore_url, root="/v1/hf", kind="datasets")
        self.namespaces: set[str] = set()

    def routes(self, routes: Routes) -> None:
        routes.add("POST", "/v1/datastore/namespaces", self._create_namespace)
        routes.add("GET", "/v1/datastore/namespaces/{id}", self._namespace)
        super().routes(routes)

    def file(self, url: str) -> bytes:
        """The file or the files behind `hf://datasets/namespace/name[/path]`, joined; 422 where there is none."""
        _, _, rest = url.partition("hf://datasets/")
        namespace, _, tail = rest.partition("/")
        name, _, path = tail.partition("/")
        repository = self.repositories.get(f"{namespace}/{name}")
        if repository is None:
            raise Refused(422, f"{url}: there is no such repository")
        found = [content for at, content in sorted(repository.files.items()) if at == path or at.startswith(path)]
        if not found:
            raise Refused(422, f"{url}: there is no such file")
        return b"".join(found)

    def admit(self, name: str, body: Json) -> None:
        if body.get("type") != "dataset":
            raise Refused(400, "only dataset repositories are kept here")
        if body.get("organization") not in self.namespaces:
            raise Refused(404, f"namespace '{body.get('organization')}' does not exist")

    def _create_namespace(self, asked: Asked) -> Answered:
        if asked.headers.get("Content-Type", "").split(";")[0] != "application/x-www-form-urlencoded":
            raise Refused(422, "a form with the field `namespace` is expected")
        name = asked.form().get("namespace")
        if not name:
            raise Refused(422, "the field `namespace` is missing")
        if name in self.namespaces:
            raise Refused(409, f"namespace {name} already exists")
        self.namespaces.add(name)
        return Answered({"namespace": name, "created_at": now_text()}, 201)

    def _namespace(self, asked: Asked) -> Answered:
        if asked.arguments["id"] not in self.namespaces:
            raise Refused(404, "namespace not found")
        return Answered({"namespace": asked.arguments["id"]})
