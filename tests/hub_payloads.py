"""Payloads to publish in tests: small files with the names of an adapter's, and their hashes."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.resources.hub import Payload, collect

CARD = "---\nlicense: apache-2.0\nlibrary_name: peft\n---\n\n# A card\n"
LARGE = ("adapter.gguf", "adapter_model.safetensors")
LARGE_BYTES = 200_000


def make_payload(folder: Path, *, seed: int = 0, card: str = CARD, prefix: str | None = None) -> Payload:
    """A payload with two large files, whose bytes depend on the seed."""
    folder.mkdir()
    dice = random.Random(seed)
    (folder / "README.md").write_text(card)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "small.gguf", "r": 16}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    for name in LARGE:
        (folder / name).write_bytes(dice.randbytes(LARGE_BYTES))
    if prefix is not None:
        (folder / "prefix.json").write_text(prefix)
    return collect({path.name: path for path in folder.iterdir()}, CleaningPolicy(), {})


def expected(payload: Payload) -> dict[str, str]:
    """The sha256 of every file, by name."""
    return {name: file.sha256 for name, file in payload.files.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
