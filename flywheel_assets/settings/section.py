"""The base of every block of flywheel.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A block of flywheel.yaml: unknown keys are errors (a typo must not silently mean the default)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
