"""The seam: a place that keeps revisions of a repository, and what can go wrong with it, told apart by what a person does.

What does not belong here: any particular place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flywheel_assets.resources.hub.payload import Payload


class HubError(Exception):
    """Nothing, or not everything, could be published; the message says what, where and what next."""


class HubRefused(HubError):
    """An answer that no repetition changes."""


class HubUnauthorized(HubRefused):
    """No key, or one that the hub does not know."""


class HubForbidden(HubRefused):
    """The key is known, and may not do this."""


class HubUnreachable(HubError):
    """No connection, or faults of the server, for as long as was tried. What arrived there stays there."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A payload as it lies in its place.

    `revision` never means anything else: a commit, or in a folder the payload's digest. `tag` is the name it is pinned
    under. `sent` names the files that were not there already. `listed` is what the place says it holds under that revision:
    for each file of the payload that lies there, its hash as that place writes it.
    """

    repository: str
    revision: str
    tag: str
    url: str
    sent: tuple[str, ...]
    listed: Mapping[str, str]

    def differing(self, payload: Payload) -> list[str]:
        """The files of the payload that are missing there, or are other ones."""
        return differing(self.listed, payload)


def differing(listed: Mapping[str, str], payload: Payload) -> list[str]:
    """The files of a payload that are missing among those listed, or have another hash there."""
    return [name for name, file in payload.files.items() if listed.get(name) not in (file.sha256, file.git_sha1)]


class Target(Protocol):
    """A place to publish to."""

    def publish(self, repository: str, tag: str, payload: Payload, message: str) -> Placed:
        """Put the payload there under a tag that is never moved, and say what lies there now.

        What is there already is not sent again; a tag that stands for other files gets the payload's digest behind its name.
        Raises HubError.
        """
        ...


def tags_for(tag: str, payload: Payload) -> tuple[str, str]:
    """The names a payload may be pinned under, the preferred one first."""
    return tag, f"{tag}-{payload.digest[:8]}"
