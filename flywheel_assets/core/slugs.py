"""Slugs: the name of a workload that is safe as a partition key, a folder and a URL segment.

What belongs here: the one rule from an application's own workload id to its slug. What does not: where slugs are used,
or the original ids, which every record and store keeps beside the slug.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache

MAX_SLUG_LENGTH = 63
MAX_WORKLOAD_ID_LENGTH = 512

_SLUG = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_NOT_ALLOWED = re.compile(r"[^a-z0-9._-]+")
_SEPARATORS = re.compile(r"[._-]{2,}")
_HASH_DIGITS = 8


class BadWorkloadId(ValueError):
    """A workload id from which no slug can be made; the message says why and what an id needs."""


def is_slug(text: str) -> bool:
    """Whether `text` already has the form of a workload slug."""
    return len(text) <= MAX_SLUG_LENGTH and _SLUG.fullmatch(text) is not None


def workload_slug(workload_id: object) -> str:
    """The slug of a workload id: `^[a-z0-9]+([._-][a-z0-9]+)*$`, 63 characters at most, the same for ever.

    An id that already is a slug stays as it is. Any other id is lower-cased, stripped of accents, has every other run of
    characters replaced by `-`, and gets `-` and 8 hex digits of its SHA-256, so that `Router` and `router` stay two
    workloads. Raises BadWorkloadId where the id is no text, is empty, is longer than 512 characters, or leaves nothing.
    """
    if not isinstance(workload_id, str):
        raise BadWorkloadId(f"workload_id must be text, found {type(workload_id).__name__}")
    return _slug_of(workload_id)


@lru_cache(maxsize=4096)
def _slug_of(workload_id: str) -> str:
    if not workload_id.strip():
        raise BadWorkloadId("workload_id is empty")
    if len(workload_id) > MAX_WORKLOAD_ID_LENGTH:
        raise BadWorkloadId(f"workload_id has {len(workload_id)} characters, {MAX_WORKLOAD_ID_LENGTH} are allowed")
    if is_slug(workload_id):
        return workload_id
    plain = unicodedata.normalize("NFKD", workload_id).encode("ascii", "ignore").decode("ascii").lower()
    base = _SEPARATORS.sub("-", _NOT_ALLOWED.sub("-", plain)).strip("._-")
    if not base:
        raise BadWorkloadId("workload_id holds no letter a-z and no digit 0-9, so no slug can be made from it")
    digest = hashlib.sha256(workload_id.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{base[: MAX_SLUG_LENGTH - _HASH_DIGITS - 1].rstrip('._-')}-{digest}"
