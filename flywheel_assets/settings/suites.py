"""The keys of `suites`: which domain an eval row belongs to."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from flywheel_assets.core.patterns import pattern
from flywheel_assets.settings.section import Section


class Domain(Section):
    """The rows of one domain: those that meet every condition given."""

    domain: str = Field(min_length=1, description="The domain's name in reports and gates (`suite: domain=NAME`).")
    tools: tuple[str, ...] = Field(
        (), description="Patterns of tool names (`billing_*`): one fits a call that is expected, or all offered tools."
    )
    metadata: dict[str, str] = Field(default_factory=dict, description="Keys and values of the request's `metadata`.")
    text: str = Field("", description="A regular expression (RE2) that is found in what the user said, whatever its case.")

    @field_validator("text")
    @classmethod
    def _compiles(cls, value: str) -> str:
        pattern(value)
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Domain:
        if not (self.tools or self.metadata or self.text):
            raise ValueError(f"domain '{self.domain}' has no condition; give it `tools`, `metadata` or `text`")
        return self


class SuiteSettings(Section):
    """How eval rows are labelled by domain; turns and complexity are told from the rows themselves."""

    domains: tuple[Domain, ...] = Field(
        (),
        description="The first that fits names the domain. Empty: the request's `metadata.domain`, or the namespace of "
        "its tools (`billing.refund`).",
    )
