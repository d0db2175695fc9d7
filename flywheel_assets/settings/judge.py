"""The keys of `judge`: the model that judges answers."""

from __future__ import annotations

from pydantic import Field, model_validator

from flywheel_assets.settings.section import Section


class JudgeSettings(Section):
    """A model that judges answers: `model`, behind a URL, or `candidate`, one of this file. Neither: nothing is judged."""

    model: str | None = Field(
        None, pattern="^https?://", description="The URL of an OpenAI-compatible endpoint; it usually ends with /v1."
    )
    model_name: str | None = Field(None, description="The name the URL knows the judge by; null asks `/v1/models`.")
    api_key_env: str | None = Field(None, description="NAME of the environment variable that holds the URL's key.")
    candidate: str | None = Field(
        None, description="The id of a candidate that judges; one with `workloads: []` does nothing else."
    )
    pairwise: bool = Field(
        False, description="Text and structured workloads: also ask which is better, the answer or the reference, both ways."
    )
    labels: str | None = Field(
        None, description="A JSONL file of answers a person labelled, which calibrates the judge (docs/judge.md)."
    )
    similarity_threshold: int = Field(
        7, ge=2, le=10, description="With `labels`: a similarity of this or more counts as right, as a label of 1 does."
    )
    max_unparsable_share: float = Field(
        0.05, ge=0, le=1, description="A report in which more of the judged rows have no readable verdict fails."
    )
    max_tokens: int = Field(512, ge=16, description="Bound on a verdict's tokens; a judge that reasons first needs room.")
    concurrency: int = Field(4, ge=1, description="Questions in flight at once.")
    timeout_s: float = Field(120, gt=0, description="Seconds one question may take.")
    max_retries: int = Field(4, ge=0, description="Further tries after 429, 5xx and time-outs; nothing else is tried again.")
    wait_s: float = Field(300, ge=0, description="Seconds for which it is waited until the judge is ready.")

    @property
    def is_configured(self) -> bool:
        """Whether there is a judge at all."""
        return self.model is not None or self.candidate is not None

    @property
    def name(self) -> str:
        """What it is called in logs and in the price table: the candidate's id, else the model's name, else the URL."""
        return self.candidate or self.model_name or self.model or "none"

    @model_validator(mode="after")
    def _one_judge(self) -> JudgeSettings:
        if self.model is not None and self.candidate is not None:
            raise ValueError("a judge is a `model` (a URL) or a `candidate`, not both; take one out")
        if self.candidate is not None and (self.model_name or self.api_key_env):
            raise ValueError("`model_name` and `api_key_env` belong to a judge's `model`; a `candidate` has its own")
        return self
