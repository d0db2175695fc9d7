"""The hub: where an approved adapter is published, behind one seam.

What belongs here: the files that go (`payload`), a hub over HTTP (`endpoint`) and a local folder (`folder`) as places to put
them, and which of the two the settings name. What does not: what is worth publishing (`assets.publication`) and what the
files may say (`core.payload`, `core.model_card`).
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import urlsplit

from flywheel_assets.resources.hub.folder import LocalFolder
from flywheel_assets.resources.hub.payload import File, Payload, PayloadRefused, collect
from flywheel_assets.resources.hub.target import (
    HubError,
    HubForbidden,
    HubRefused,
    HubUnauthorized,
    HubUnreachable,
    Placed,
    Target,
)
from flywheel_assets.settings import Settings

__all__ = [
    "File",
    "HubError",
    "HubForbidden",
    "HubRefused",
    "HubUnauthorized",
    "HubUnreachable",
    "LocalFolder",
    "Payload",
    "PayloadRefused",
    "Placed",
    "Target",
    "collect",
    "open_target",
    "place_of",
    "repository_of",
]

# A repository's name may have so many characters on the hub.
_LONGEST_NAME = 96
_DIGEST_CHARS = 8


def place_of(settings: Settings) -> str:
    """What tells one place to publish from another: the folder, or the hub's address and namespace."""
    hub = settings.hub
    if hub.folder is not None:
        return str(settings.resolve(hub.folder))
    # Empty: the client's own default. Never what stands before an `@`, which is a key that would be kept with every version.
    address = urlsplit(os.environ.get("HF_ENDPOINT", "").rstrip("/"))
    return f"{address._replace(netloc=address.netloc.rpartition('@')[2]).geturl()}#{hub.namespace}"


def repository_of(settings: Settings, workload: str, candidate: str) -> str:
    """The repository of a cell: `namespace/name`, or just the name in a local folder."""
    name = settings.hub.name.format(workload=workload, candidate=candidate)
    if len(name) > _LONGEST_NAME:
        # Cut names still differ.
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARS]
        name = f"{name[: _LONGEST_NAME - _DIGEST_CHARS - 1].rstrip('-._')}-{digest}"
    return name if settings.hub.namespace is None else f"{settings.hub.namespace}/{name}"


def open_target(settings: Settings) -> Target:
    """Where the settings say that adapters go. Raises HubUnauthorized for a key that cannot be sent."""
    if settings.hub.folder is not None:
        return LocalFolder(settings.resolve(settings.hub.folder))
    # Imported here: whoever publishes into a folder, or nowhere, needs no client.
    from flywheel_assets.resources.hub.endpoint import HubEndpoint

    return HubEndpoint.from_environment(private=settings.hub.private)
