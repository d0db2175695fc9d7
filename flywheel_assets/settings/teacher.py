"""The keys of `teacher`: the model that serves a workload today, where it can still be asked."""

from __future__ import annotations

from pydantic import Field, model_validator

from flywheel_assets.settings.section import Section


class TeacherSettings(Section):
    """The teacher's endpoint. Where it is given, the teacher is asked the eval rows once more (`evals/teacher`): how often
    it agrees with itself is the ceiling for everybody else."""

    model: str | None = Field(
        None, pattern="^https?://", description="URL of an OpenAI-compatible endpoint; null: the teacher is not asked."
    )
    model_name: str | None = Field(None, description="The name the endpoint knows it by; null asks `/v1/models`.")
    api_key_env: str | None = Field(
        None, description="NAME of the environment variable that holds the endpoint's key; never the key itself."
    )

    @model_validator(mode="after")
    def _names_an_endpoint(self) -> TeacherSettings:
        if self.model is None and (self.model_name or self.api_key_env):
            raise ValueError("`teacher.model` is missing: the URL under which the teacher is asked")
        return self
