"""The keys of `cleaning`: what is taken out of records before anything is made of them."""

from __future__ import annotations

from pydantic import Field, field_validator

from flywheel_assets.core.cleaning import Entity, allow_pattern
from flywheel_assets.settings.section import Section


class CleaningSettings(Section):
    """What is taken out of records before anything is made of them; every step can be switched off and is counted."""

    scrub: bool = Field(True, description="Replace personal data and secrets by placeholders.")
    allow: tuple[str, ...] = Field(
        (),
        description="Values that are left: literal text, or a regular expression (RE2) between slashes for the whole value.",
    )
    entities: tuple[Entity, ...] = Field(tuple(Entity), description="Kinds of values that are replaced.")
    near_duplicates: bool = Field(
        True, description="Keep conversations that nearly repeat each other on one side of the split."
    )
    similarity: float = Field(
        0.9, ge=0.5, le=0.97, description="Share of common word triples from which two conversations nearly repeat."
    )
    drop_truncated: bool = Field(
        True, description="Use no record whose answer ended at the token limit or in a content filter (`finish_reason`)."
    )
    drop_refusals: bool = Field(
        False, description="Use no record whose answer is a refusal; false, because declining may be the right answer."
    )
    min_feedback: float | None = Field(
        None, description="Use no record with a `feedback.score` below this; null: all. Unrated records are used."
    )

    @field_validator("allow")
    @classmethod
    def _allow_compiles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allow_pattern(value)
        return value
