"""Repositories as the Hugging Face API shows them: files, Git LFS objects, commits and tags, over `tests.nemo.wire`.

What belongs here: what every endpoint of that API does alike. What does not: who may do it, and faults (`tests.hub_server`,
`tests.nemo.data_store`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.nemo.wire import Answered, Asked, Json, Refused, Routes

FIRST_COMMIT = "0" * 40
_REPO = "{namespace}/{name}"


@dataclass
class Repository:
    """One repository: its files as they stand, those of them that are LFS files, and both as of every commit."""

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=lambda: [FIRST_COMMIT])
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    history: dict[str, tuple[dict[str, bytes], set[str]]] = field(default_factory=lambda: {FIRST_COMMIT: ({}, set())})

    def at(self, revision: str) -> tuple[dict[str, bytes], set[str]]:
        """Files and names of large files under a branch, tag or commit."""
        commit = self.commits[-1] if revision == "main" else self.tags.get(revision, revision)
        if commit not in self.history:
            raise Refused(404, f"Revision {revision} not found")
        return self.history[commit]

    def commit(self, oid: str, files: dict[str, bytes], large: set[str]) -> None:
        """Add a commit to the main branch."""
        self.files, self.large = files, large
        self.commits.append(oid)
        self.history[oid] = (files, large)


class Repositories:
    """Repositories of one kind (`models` or `datasets`) below `root`. Files of `lfs_from` bytes and more go the LFS way; an
    oid that does not fit its bytes is refused."""

    def __init__(self, address: Callable[[], str], *, root: str = "", kind: str = "models") -> None:
        self._address, self._root, self._kind = address, root, kind
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.lfs_from = 10_000_000

    def routes(self, routes: Routes) -> None:
        api, web = f"{self._root}/api", self._root + ("" if self._kind == "models" else f"/{self._kind}")
        routes.add("POST", f"{api}/repos/create", self._create_repo)
        routes.add("DELETE", f"{api}/repos/delete", self._delete_repo)
        routes.add("POST", f"{api}/{self._kind}/{_REPO}/preupload/{{revision}}", self._preupload)
        routes.add("POST", f"{api}/{self._kind}/{_REPO}/commit/{{revision}}", self._commit)
        routes.add("GET", f"{api}/{self._kind}/{_REPO}/tree/{{revision}}", self._tree)
        routes.add("GET", f"{api}/{self._kind}/{_REPO}/refs", self._refs)
        routes.add("POST", f"{api}/{self._kind}/{_REPO}/tag/{{revision}}", self._tag)
        routes.add("GET", f"{api}/{self._kind}/{_REPO}/revision/{{revision}}", self._info)
        routes.add("GET", f"{api}/{self._kind}/{_REPO}", self._info)
        routes.add("POST", f"{web}/{{namespace}}/{{name}}.git/info/lfs/objects/batch", self._batch)
        routes.add("PUT", f"{self._root}/lfs/{{oid}}", self._put)
        routes.add("POST", f"{self._root}/lfs/{{oid}}/verify", self._verify)
        routes.add("GET", f"{web}/{_REPO}/resolve/{{revision}}/{{path*}}", self._resolve)
        routes.add("HEAD", f"{web}/{_REPO}/resolve/{{revision}}/{{path*}}", self._resolve)

    def upload_url(self, oid: str) -> str:
        """Where an object's bytes are to be put."""
        return f"{self._address()}{self._root}/lfs/{oid}"

    def admit(self, name: str, body: Json) -> None:
        """Refuse a repository that may not be made."""

    def _create_repo(self, asked: Asked) -> Answered:
        body = asked.json()
        name = f"{body['organization']}/{body['name']}"
        self.admit(name, body)
        if name in self.repositories:
            raise Refused(409, f"repository {name} already exists")
        self.repositories[name] = Repository(private=body.get("visibility") == "private")
        place = "" if self._kind == "models" else f"/{self._kind}"
        return Answered({"url": f"{self._address()}{self._root}{place}/{name}", "name": name})

    def _delete_repo(self, asked: Asked) -> Answered:
        body = asked.json()
        name = f"{body['organization']}/{body['name']}"
        self.repository(name)
        del self.repositories[name]
        return Answered({"message": "deleted"})

    def _preupload(self, asked: Asked) -> Answered:
        self.repository(name_of(asked))
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
        repository = self.repository(name_of(asked))
        lines = [json.loads(line) for line in asked.raw.splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header":
            raise Refused(400, "the first line of a commit is its header")
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != repository.commits[-1]:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files, large = dict(repository.files), set(repository.large)
        for line in lines[1:]:
            value = line["value"]
            large.discard(value["path"])
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refused(422, f"{value['path']}: object {value['oid']} was not uploaded")
                files[value["path"]] = self.objects[value["oid"]]
                large.add(value["path"])
            elif line["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "A file with this name doesn't exist")
            else:
                raise Refused(400, f"unknown operation {line['key']}")
        oid = hashlib.sha1(repository.commits[-1].encode() + asked.raw).hexdigest()
        repository.commit(oid, files, large)
        place = "" if self._kind == "models" else f"/{self._kind}"
        url = f"{self._address()}{self._root}{place}/{name_of(asked)}/commit/{oid}"
        return Answered({"success": True, "commitOid": oid, "commitUrl": url})

    def _tree(self, asked: Asked) -> Answered:
        files, large = self.repository(name_of(asked)).at(asked.arguments["revision"])
        return Answered([_entry(path, content, path in large) for path, content in sorted(files.items())])

    def _refs(self, asked: Asked) -> Answered:
        repository = self.repository(name_of(asked))
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1]}
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in repository.tags.items()]
        return Answered({"branches": [main], "converts": [], "tags": tags})

    def _tag(self, asked: Asked) -> Answered:
        repository, tag = self.repository(name_of(asked)), asked.json()["tag"]
        if tag in repository.tags:
            raise Refused(409, f"Tag {tag} already exists")
        repository.at(asked.arguments["revision"])
        named = asked.arguments["revision"]
        repository.tags[tag] = repository.commits[-1] if named == "main" else named
        return Answered({})

    def _info(self, asked: Asked) -> Answered:
        repository = self.repository(name_of(asked))
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        content = {"id": name_of(asked), "sha": repository.commits[-1], "siblings": siblings}
        return Answered({**content, "private": repository.private})

    def _batch(self, asked: Asked) -> Answered:
        self.repository(name_of(asked))
        objects: list[Json] = []
        for wanted in asked.json()["objects"]:
            entry: Json = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.objects:
                verify = f"{self._address()}{self._root}/lfs/{wanted['oid']}/verify"
                entry["actions"] = {"upload": {"href": self.upload_url(wanted["oid"])}, "verify": {"href": verify}}
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
        files, _ = self.repository(name_of(asked)).at(asked.arguments["revision"])
        content = files.get(asked.arguments["path"])
        if content is None:
            raise Refused(404, "Entry not found")
        commit = self.repository(name_of(asked)).commits[-1]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        return Answered(content, headers={**headers, "Content-Length": str(len(content))})

    def repository(self, name: str) -> Repository:
        """The repository of that name; 404 where there is none."""
        if name not in self.repositories:
            raise Refused(404, f"repository {name} does not exist")
        return self.repositories[name]


def name_of(asked: Asked) -> str:
    """The repository a request is about."""
    return f"{asked.arguments['namespace']}/{asked.arguments['name']}"


def git_sha1(content: bytes) -> str:
    """The hash Git gives a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(path: str, content: bytes, large: bool) -> Json:
    entry: Json = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
    if not large:
        return entry
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    return {**entry, "oid": git_sha1(pointer), "lfs": {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}}
