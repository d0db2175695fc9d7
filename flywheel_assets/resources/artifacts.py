"""Artifacts: immutable, content-addressed versions of every asset partition, and the refs that say which is current.

    objects/<asset>/<partition>/<version>/   files and manifest.json, published by one rename
    refs/<asset>/<partition>.json            the current version: the truth, replaced atomically
    failures/<asset>/<partition>.json        why the last attempt ended badly; gone with the next success
    drafts/                                  work in progress; never read

What does not belong here: what is inside an artifact (`core`), and when to make one (`core.planner`).
"""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from flywheel_assets.core.graph import BY_NAME, Partition
from flywheel_assets.core.planner import MOST_KILLS, Failure, Published
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.json_files import read_object, write_json
from flywheel_assets.resources.processes import ProcessIdentity, this_process

MANIFEST = "manifest.json"
_HASH_CHUNK = 1 << 20
_REF_KEYS = ("version", "data_version", "inputs_key", "state")
_MANIFEST_KEYS = ("data_version", "inputs_key", "state", "summary", "created_at", "files", "inputs")


class ArtifactMissing(Exception):
    """An artifact that something needs is not published; the message says what to materialize."""


class AlreadyBeingMade(Exception):
    """Another process holds the lock of this asset partition."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One published version of one asset partition, as its manifest describes it."""

    asset: str
    partition: Partition
    version: str
    path: Path
    manifest: Json

    @property
    def data_version(self) -> str:
        """Hash of the meaning the asset declares."""
        return str(self.manifest["data_version"])

    @property
    def inputs_key(self) -> str:
        """Identity of the computation that made it."""
        return str(self.manifest["inputs_key"])

    @property
    def state(self) -> str:
        """`ok`, `failed` or `skipped`."""
        return str(self.manifest["state"])

    @property
    def reason(self) -> str | None:
        """Why it was skipped or failed."""
        return self.manifest.get("reason")

    @property
    def summary(self) -> Json:
        """Small facts about the content: counts, scores."""
        summary: Json = self.manifest.get("summary") or {}
        return summary


@dataclass(slots=True)
class Draft:
    """A folder to write one version into; nothing reads it before it is published."""

    path: Path
    inherited: dict[tuple[int, int], str] = field(default_factory=dict)

    def inherit_hashes(self, previous: Artifact | None) -> None:
        """Trust the recorded sha256 of files that are hard links of a previous version: same inode, same bytes."""
        if previous is None:
            return
        for name, entry in previous.manifest["files"].items():
            status = (previous.path / name).stat()
            self.inherited[(status.st_dev, status.st_ino)] = entry["sha256"]


@dataclass(frozen=True, slots=True)
class Made:
    """What a body declares about its draft: meaning, state and what a person wants to know.

    `blocked` is set when a blocking check failed: the artifact is kept to be looked at, and nothing is built on it.
    """

    data_version: str
    summary: Json
    state: str = "ok"
    reason: str | None = None
    blocked: str | None = None


class ArtifactStore:
    """Artifacts in a local folder. Safe for several processes: bodies lock, refs are replaced by one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- reading -------------------------------------------------------------------------------------------------

    def current(self, asset: str, partition: Partition) -> Artifact | None:
        """The current version, or None if there is none, or what is left of it cannot be read: then it is made again."""
        ref = self._current_ref(asset, partition)
        manifest = None if ref is None else self._manifest(asset, partition, ref["version"])
        if ref is None or manifest is None:
            return None
        return Artifact(asset, partition, ref["version"], self._objects(asset, partition) / ref["version"], manifest)

    def version(self, asset: str, partition: Partition, version: str) -> Artifact:
        """One version by name, current or not."""
        path = self._objects(asset, partition) / version
        manifest = self._manifest(asset, partition, version)
        if manifest is None:
            raise ArtifactMissing(
                f"version {version} of {asset} ({partition}) is gone from {path}, or its {MANIFEST} cannot be read. Run "
                "`flywheel run` to rebuild it."
            )
        return Artifact(asset, partition, version, path, manifest)

    def require(self, asset: str, partition: Partition) -> Artifact:
        """The current version; ArtifactMissing says what to do if there is none, or it is not usable."""
        artifact = self.current(asset, partition)
        if artifact is None:
            raise ArtifactMissing(f"{asset} of {partition} is not made yet. Materialize it first, or run `flywheel run`.")
        return artifact

    def published(self, asset: str, partition: Partition) -> Published | None:
        """What the planner needs to know of the current version; reads one small file, and sees that the version exists."""
        ref = self._current_ref(asset, partition)
        if ref is None or not (self._objects(asset, partition) / ref["version"] / MANIFEST).is_file():
            return None
        return Published(
            inputs_key=ref["inputs_key"],
            data_version=ref["data_version"],
            state=ref["state"],
            reason=ref.get("reason"),
            blocked=ref.get("blocked"),
        )

    def failure(self, asset: str, partition: Partition) -> Failure | None:
        """The recorded failure, if the last attempt ended badly."""
        content = read_object(self._failure(asset, partition), ("inputs_key", "message"))
        # `kills` is absent from failures recorded before they were counted.
        if content is None:
            return None
        return Failure(content["inputs_key"], content["message"], content.get("kills", 0), content.get("run_id", ""))

    def history(self, asset: str, partition: Partition) -> list[Artifact]:
        """Every version still there, oldest first."""
        folder = self._objects(asset, partition)
        if not folder.is_dir():
            return []
        found = ((path, self._manifest(asset, partition, path.name)) for path in folder.iterdir())
        versions = [
            Artifact(asset, partition, path.name, path, manifest) for path, manifest in found if manifest is not None
        ]
        return sorted(versions, key=lambda artifact: artifact.manifest["created_at"])

    # -- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, asset: str, partition: Partition, *, timeout_s: float = -1) -> Iterator[None]:
        """One writer at a time for an asset partition; the kernel frees it when the process dies.

        `timeout_s` < 0 waits for ever. Raises AlreadyBeingMade when the time is over.
        """
        path = self.root / "locks" / f"{asset}@{partition.path}".replace("/", "+")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=timeout_s)
        try:
            with lock:
                yield
        except Timeout:
            raise AlreadyBeingMade(f"{asset} of {partition} is being made by another run. Wait for it to end.") from None

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A fresh folder, removed again unless it was published."""
        path = self.root / "drafts" / f"{this_process()}@{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        try:
            yield Draft(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(
        self,
        draft: Draft,
        asset: str,
        partition: Partition,
        made: Made,
        *,
        inputs_key: str,
        inputs: Mapping[str, str],
        settings: Json,
        code_version: str,
        origin: Mapping[str, str],
    ) -> Artifact:
        """Make a draft the current version: hash, manifest, one rename, then the ref. `origin` names the run."""
        files = _hash_files(draft)
        identity: dict[str, Any] = {"asset": asset, "partition": partition.path, "inputs_key": inputs_key, "files": files}
        if made.state == "failed":
            # A later attempt may write the same files and succeed; it must not be taken for this one.
            identity["state"] = made.state
        version = hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        manifest: dict[str, Any] = {
            "asset": asset,
            "workload": partition.workload or None,
            "candidate": partition.candidate or None,
            "version": version,
            "data_version": made.data_version,
            "inputs_key": inputs_key,
            "state": made.state,
            "reason": made.reason,
            "blocked": made.blocked,
            "summary": made.summary,
            "inputs": dict(inputs),
            "settings": settings,
            "code_version": code_version,
            "created_at": time.time(),
            "origin": dict(origin),
            "files": files,
        }
        write_json(draft.path / MANIFEST, manifest)
        target = self._objects(asset, partition) / version
        if not (target / MANIFEST).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.path.rename(target)
        artifact = self.version(asset, partition, version)
        self.point_to(artifact)
        return artifact

    def point_to(self, artifact: Artifact) -> None:
        """Make a published version the current one, and forget the failure that stood before it."""
        ref = {
            key: artifact.manifest.get(key)
            for key in ("version", "data_version", "inputs_key", "state", "reason", "blocked", "created_at")
        }
        write_json(self._ref(artifact.asset, artifact.partition), ref)
        self._failure(artifact.asset, artifact.partition).unlink(missing_ok=True)

    def find(self, asset: str, partition: Partition, inputs_key: str) -> Artifact | None:
        """A published, usable version made from exactly these inputs: there is nothing to compute.

        Of an asset that reads itself only the current one: an older one knows nothing of what came after it.
        """
        current = self.current(asset, partition)
        candidates = [current] if current is not None else []
        if not BY_NAME[asset].reads_itself:
            candidates += [
                a for a in reversed(self.history(asset, partition)) if current is None or a.version != current.version
            ]
        return next((a for a in candidates if a.inputs_key == inputs_key and a.state != "failed"), None)

    def record_failure(self, asset: str, partition: Partition, inputs_key: str, message: str, run_id: str) -> None:
        """Keep why an attempt ended badly, for the planner, the comparison and `flywheel status`."""
        content = {"inputs_key": inputs_key, "message": message, "run_id": run_id, "at": time.time()}
        write_json(self._failure(asset, partition), content)

    def record_kill(
        self, asset: str, partition: Partition, inputs_key: str, *, said: str | None = None, run_id: str = ""
    ) -> Failure:
        """Keep that an attempt ended without saying anything about its inputs, as when it is killed or cancelled.

        `said` is what a body said that lived on when a process it needed was killed, and `run_id` its run.
        """
        before = self.failure(asset, partition)
        kills = 1 + (before.kills if before is not None and before.inputs_key == inputs_key else 0)
        again = (
            f"`flywheel run` tries again; after {MOST_KILLS} kills the others are decided without it"
            if kills < MOST_KILLS
            else "the others are decided without it"
        )
        how = said or "its run was killed, or ended without a result"
        message = f"{how} ({kills} of {MOST_KILLS} times; its log in the Dagster UI says why); {again}"
        content = {"inputs_key": inputs_key, "message": message, "run_id": run_id, "at": time.time(), "kills": kills}
        write_json(self._failure(asset, partition), content)
        return Failure(inputs_key, message, kills, run_id)

    def sweep_drafts(self) -> int:
        """Remove drafts whose writer is dead (a killed run leaves its own behind); how many there were."""
        removed = 0
        for path in (self.root / "drafts").glob("*@*"):
            owner = ProcessIdentity.known(path.name.rpartition("@")[0])
            # What has no owner's name is not ours to remove.
            if owner is not None and owner.is_dead():
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
        return removed

    def _current_ref(self, asset: str, partition: Partition) -> Json | None:
        ref = read_object(self._ref(asset, partition), _REF_KEYS)
        return ref if ref is not None and _is_name(ref["version"]) else None

    def _manifest(self, asset: str, partition: Partition, version: str) -> Json | None:
        return read_object(self._objects(asset, partition) / version / MANIFEST, _MANIFEST_KEYS)

    # -- where things lie ----------------------------------------------------------------------------------------

    def _objects(self, asset: str, partition: Partition) -> Path:
        return self.root / "objects" / asset / partition.path

    def _ref(self, asset: str, partition: Partition) -> Path:
        return self.root / "refs" / asset / f"{partition.path}.json"

    def _failure(self, asset: str, partition: Partition) -> Path:
        return self.root / "failures" / asset / f"{partition.path}.json"


def _is_name(version: object) -> bool:
    """Whether a ref names a folder beside the others, and no way out of there."""
    return isinstance(version, str) and version.isalnum()


def _hash_files(draft: Draft) -> dict[str, Json]:
    """sha256 and size of every file of a draft, by relative name."""
    files: dict[str, Json] = {}
    for path in sorted(draft.path.rglob("*")):
        if not path.is_file():
            continue
        status = path.stat()
        digest = draft.inherited.get((status.st_dev, status.st_ino)) or sha256_of_file(path)
        files[path.relative_to(draft.path).as_posix()] = {"sha256": digest, "bytes": status.st_size}
    return files


def sha256_of_file(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
