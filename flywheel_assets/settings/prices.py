"""The keys of `prices.<name>`: what a model's tokens cost."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section

# A dollar a token: no model costs that, and a slip of the keyboard must not make a cost that no report can hold.
_MOST = 1_000_000


class Price(Section):
    """What a model's tokens cost. The name is a candidate's id, or the teacher's model name as the records have it."""

    prompt: float = Field(ge=0, le=_MOST, description="USD per million prompt tokens.")
    completion: float = Field(ge=0, le=_MOST, description="USD per million completion tokens.")
    cached_prompt: float | None = Field(
        None,
        ge=0,
        le=_MOST,
        description="USD per million prompt tokens that the server took from its prompt cache; null: as much as the others.",
    )
