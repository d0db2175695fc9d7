"""The keys of `prices.<name>`: what a model's tokens cost."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class Price(Section):
    """What a model's tokens cost. The name is a candidate's id, or the teacher's model name as the records have it."""

    prompt: float = Field(ge=0, description="USD per million prompt tokens.")
    completion: float = Field(ge=0, description="USD per million completion tokens.")
