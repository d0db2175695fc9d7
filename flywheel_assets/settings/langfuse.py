"""The keys of `langfuse`: which generations of a Langfuse project become records."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class LangfuseSettings(Section):
    """A Langfuse project as a source of records. Host and keys come from the environment: LANGFUSE_BASE_URL,
    LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY."""

    enabled: bool = Field(False, description="Whether records are fetched from Langfuse.")
