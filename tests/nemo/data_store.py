"""Data Store of the NeMo test server: namespaces by form, and what `HfApi` needs for dataset repositories."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, now_text

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer

_API = "/v1/hf/api"
_REPO = "{namespace}/{name}"


@dataclass
class Repository:
    """One dataset repository: its files as they stand, and a commit a change."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])


class DataStore:
    """Files above `lfs_from` bytes go the LFS way; an oid that does not fit its bytes is refused."""

    def __init__(self, server: NemoServer) -> None:
        self._server = server
        self.namespaces: set[str] = set()
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.lfs_from = 10_000_000

    def routes(self, routes: Routes) -> None:
        routes.add("POST", "/v1/datastore/namespaces", self._create_namespace)
        routes.add("GET", "/v1/datastore/namespaces/{id}", self._namespace)
        routes.add("POST", f"{_API}/repos/create", self._create_repo)
        routes.add("DELETE", f"{_API}/repos/delete", self._delete_repo)
        routes.add("POST", f"{_API}/datasets/{_REPO}/preupload/{{revision}}", self._preupload)
        routes.add("POST", f"{_API}/datasets/{_REPO}/commit/{{revision}}", self._commit)
        routes.add("GET", f"{_API}/datasets/{_REPO}/tree/{{revision}}", self._tree)
        routes.add("GET", f"{_API}/datasets/{_REPO}/revision/{{revision}}", self._info)
        routes.add("GET", f"{_API}/datasets/{_REPO}", self._info)
        routes.add("POST", "/v1/hf/datasets/{namespace}/{name}.git/info/lfs/objects/batch", self._batch)
        routes.add("PUT", "/v1/hf/lfs/{oid}", self._put)
        routes.add("POST", "/v1/hf/lfs/{oid}/verify", self._verify)
        routes.add("GET", "/v1/hf/datasets/{namespace}/{name}/resolve/{revision}/{path*}", self._resolve)
        routes.add("HEAD", "/v1/hf/datasets/{namespace}/{name}/resolve/{revision}/{path*}", self._resolve)

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

    def _create_repo(self, asked: Asked) -> Answered:
        body = asked.json()
        if body.get("type") != "dataset":
            raise Refused(400, "only dataset repositories are kept here")
        if body.get("organization") not in self.namespaces:
            raise Refused(404, f"namespace '{body.get('organization')}' does not exist")
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            raise Refused(409, f"repository {name} already exists")
        self.repositories[name] = Repository()
        return Answered({"url": f"{self._server.datastore_url}/v1/hf/datasets/{name}", "name": name})

    def _delete_repo(self, asked: Asked) -> Answered:
        body = asked.json()
        name = f"{body['organization']}/{body['name']}"
        self._repository(name)
        del self.repositories[name]
        return Answered({"message": "deleted"})

    def _preupload(self, asked: Asked) -> Answered:
        self._repository(_name(asked))
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= self.lfs_from else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked.json()["files"]
        ]
        return Answered({"files": files})

    def _commit(self, asked: Asked) -> Answered:
        repository = self._repository(_name(asked))
        lines = [json.loads(line) for line in asked.raw.splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header":
            raise Refused(400, "the first line of a commit is its header")
        files = dict(repository.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refused(422, f"{value['path']}: object {value['oid']} was not uploaded")
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
            else:
                raise Refused(400, f"unknown operation {line['key']}")
        repository.files = files
        commit = hashlib.sha1(asked.raw).hexdigest()
        repository.commits.append(commit)
        url = f"{self._server.datastore_url}/v1/hf/datasets/{_name(asked)}/commit/{commit}"
        return Answered({"success": True, "commitOid": commit, "commitUrl": url})

    def _tree(self, asked: Asked) -> Answered:
        repository = self._repository(_name(asked))
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(repository.files.items())
        ]
        return Answered(entries)

    def _info(self, asked: Asked) -> Answered:
        repository = self._repository(_name(asked))
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        return Answered({"id": _name(asked), "sha": repository.commits[-1], "siblings": siblings, "private": False})

    def _batch(self, asked: Asked) -> Answered:
        self._repository(_name(asked))
        objects: list[Json] = []
        for wanted in asked.json()["objects"]:
            entry: Json = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.objects:
                href = f"{self._server.datastore_url}/v1/hf/lfs/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(entry)
        return Answered({"transfer": "basic", "objects": objects})

    def _put(self, asked: Asked) -> Answered:
        if hashlib.sha256(asked.raw).hexdigest() != asked.arguments["oid"]:
            raise Refused(422, "the bytes do not have that sha256")
        self.objects[asked.arguments["oid"]] = asked.raw
        return Answered({})

    def _verify(self, asked: Asked) -> Answered:
        content = self.objects.get(asked.arguments["oid"])
        if content is None or len(content) != asked.json()["size"]:
            raise Refused(422, "the object is not there, or of another size")
        return Answered({})

    def _resolve(self, asked: Asked) -> Answered:
        repository = self._repository(_name(asked))
        content = repository.files.get(asked.arguments["path"])
        if content is None:
            raise Refused(404, "Entry not found")
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.commits[-1]}
        return Answered(content, headers={**headers, "Content-Length": str(len(content))})

    def _repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise Refused(404, f"repository {name} does not exist")
        return self.repositories[name]


def _name(asked: Asked) -> str:
    return f"{asked.arguments['namespace']}/{asked.arguments['name']}"
