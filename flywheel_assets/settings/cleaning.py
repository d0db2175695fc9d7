"""The keys of `cleaning`: what is taken out of records before anything is made of them."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class CleaningSettings(Section):
    """What is taken out of records before anything is made of them; every step can be switched off and is counted."""

    scrub: bool = Field(True, description="Replace personal data and secrets by placeholders.")
