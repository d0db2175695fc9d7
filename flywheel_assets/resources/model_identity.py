"""Model identity: what a candidate's weights and template are, before anything is served."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flywheel_assets.resources.chat_templates import resolve_template
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.model_files import sha256_of
from flywheel_assets.settings import Candidate, Settings


def model_identity(settings: Settings, candidate: Candidate) -> str:
    """What a candidate's weights are: the hash of a local file or folder listing, else the URL or hub id as written."""
    if candidate.is_remote:
        return f"{without_credentials(candidate.model)}#{candidate.model_name or ''}"
    if candidate.nim is not None:
        return f"nim:{candidate.model}:{candidate.nim.tag or ''}"
    path = model_path(settings, candidate)
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        listing = sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())
        return hashlib.sha256(repr(listing).encode()).hexdigest()
    return candidate.model


def model_path(settings: Settings, candidate: Candidate) -> Path:
    """Where a candidate's weights lie on this machine, if they are a file or folder."""
    return settings.resolve(candidate.model)


def template_hash(settings: Settings, candidate: Candidate) -> str | None:
    """sha256 of the chat template that replaces the model's own, or None."""
    template = resolve_template(candidate, settings.root)
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()
