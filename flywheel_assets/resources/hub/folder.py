"""A local folder as the hub: every revision a folder of its own, published by one rename.

<folder>/<repository>/revisions/<tag>/   the files
<folder>/<repository>/main               a link to the revision that was published last
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from filelock import FileLock

from flywheel_assets.resources.hub.payload import File, Payload
from flywheel_assets.resources.hub.target import HubRefused, Placed, tags_for

_REVISIONS = "revisions"
_DRAFT = ".draft-"


class LocalFolder:
    """Repositories as folders of a folder, which is made where it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, repository: str, tag: str, payload: Payload, message: str) -> Placed:
        """As `Target.publish` says; `message` has no place here."""
        home = self._root / repository
        try:
            (home / _REVISIONS).mkdir(parents=True, exist_ok=True)
            with FileLock(home / ".lock"):
                return self._publish(home, repository, tag, payload)
        except OSError as error:
            raise HubRefused(
                f"the folder {home} cannot be written ({error.strerror}). Make room or set its rights, or name another "
                "`hub.folder`."
            ) from error

    def _publish(self, home: Path, repository: str, tag: str, payload: Payload) -> Placed:
        for left in home.glob(f"{_DRAFT}*"):
            # Of a process that was killed: whoever writes holds the lock.
            if left.is_symlink():
                left.unlink()
            else:
                shutil.rmtree(left)
        sent: tuple[str, ...] = ()
        for name in tags_for(tag, payload):
            revision = home / _REVISIONS / name
            if not revision.exists():
                self._write(home, revision, payload)
                sent = tuple(payload.files)
            if _digest(revision) == payload.digest:
                break
        else:
            raise HubRefused(f"{revision} was changed by hand. Move it aside; a revision is never written twice.")
        _point(home / "main", revision)
        listed = {path.name: File.at(path).sha256 for path in revision.iterdir()}
        return Placed(repository, payload.digest, revision.name, str(revision), sent, listed)

    def _write(self, home: Path, revision: Path, payload: Payload) -> None:
        draft = home / f"{_DRAFT}{uuid.uuid4().hex}"
        draft.mkdir()
        for name, file in payload.files.items():
            with file.path.open("rb") as source, (draft / name).open("wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
        draft.rename(revision)


def _digest(revision: Path) -> str:
    return Payload({path.name: File.at(path) for path in sorted(revision.iterdir())}).digest


def _point(link: Path, revision: Path) -> None:
    """The link is replaced whole; whoever follows it sees the old revision or the new one."""
    fresh = link.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
    fresh.symlink_to(Path(_REVISIONS) / revision.name)
    fresh.replace(link)
