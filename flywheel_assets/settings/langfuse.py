"""The keys of `langfuse`: which generations of a Langfuse project become records."""

from __future__ import annotations

from pydantic import Field, field_validator

from flywheel_assets.settings.section import Section

_PREFIXED_RULES = ("tag:", "metadata:")
_PLAIN_RULES = ("trace_name", "name", "prompt_name", "environment", "model")


class LangfuseSettings(Section):
    """A Langfuse project as a source of records. Host and keys come from the environment: LANGFUSE_BASE_URL,
    LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY."""

    enabled: bool = Field(False, description="Whether records are fetched from Langfuse.")
    workload_from: tuple[str, ...] = Field(
        ("tag:workload:", "metadata:workload_id", "trace_name", "name"),
        min_length=1,
        description="Where a generation's workload_id stands; the first that gives something wins: `tag:PREFIX` (the rest "
        "of the first such tag), `metadata:KEY`, `trace_name`, `name`, `prompt_name`, `environment`, `model`.",
    )
    environments: tuple[str, ...] = Field(
        (),
        description="Langfuse environments to read; []: all but Langfuse's own (`langfuse...`, `sdk-experiment`) and the "
        "one that the flywheel's traces go to (`flywheel`).",
    )
    source: str = Field("traffic", min_length=1, description="`source` of the records: traffic is examined on.")
    feedback_score: str | None = Field(
        "user-feedback", description="Name of the numeric or boolean score that becomes feedback.score; null: none."
    )
    correction_score: str | None = Field(
        "output", description="Name of the score whose text, or else comment, becomes feedback.correction; null: none."
    )
    lookback_days: float = Field(30, gt=0, description="How far back the first reading goes.")
    overlap_minutes: float = Field(
        30, ge=1, description="How late a generation or a score may arrive and still be found: this much is read again."
    )
    calls_per_minute: int = Field(25, ge=1, description="API calls a minute at most (Langfuse's Hobby plan allows 30).")
    page_size: int = Field(500, ge=1, le=1000, description="Generations asked for in one call.")

    @field_validator("workload_from")
    @classmethod
    def _known_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            prefixed = any(rule.startswith(prefix) and len(rule) > len(prefix) for prefix in _PREFIXED_RULES)
            if not prefixed and rule not in _PLAIN_RULES:
                accepted = ", ".join(("tag:PREFIX", "metadata:KEY", *_PLAIN_RULES))
                raise ValueError(f"'{rule}' is no rule; accepted: {accepted}")
        return rules
