"""The keys of `decision` and `promotion`: the gates, registered beforehand, and what follows from a verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from flywheel_assets.settings.section import Section


class Gate(Section):
    """One condition a candidate must meet: exactly one of `margin`, `floor`, `improvement`, `zero_tolerance`,
    `latency_p95_ms` and `cost_per_1k_usd`; the first four are about a `metric`, and may be about one suite only."""

    metric: str | None = Field(None, description="A column of predictions.parquet, such as function_name_and_args or f1.")
    margin: float | None = Field(
        None, gt=0, lt=1, description="Non-inferior: a loss against the reference of this much or more is excluded."
    )
    floor: float | None = Field(None, gt=0, lt=1, description="The mean is shown to be above this.")
    improvement: float | None = Field(
        None, ge=0, lt=1, description="The gain over the candidate's own base variant is shown to be above this."
    )
    zero_tolerance: Literal[True] | None = Field(None, description="true: no row may score below 1.")
    latency_p95_ms: float | None = Field(None, gt=0, description="95 of 100 answers come within this many milliseconds.")
    cost_per_1k_usd: float | None = Field(None, gt=0, description="1,000 requests cost at most this many USD.")
    against: Literal["reference", "teacher", "incumbent"] = Field(
        "reference",
        description="With `margin`: the teacher's logged answers, the teacher asked once more (needs `teacher.model`), or "
        "the small model that serves now.",
    )
    suite: str | None = Field(
        None, pattern="^[a-z_]+=.+$", description="Only rows with this label, such as turns=multi_turn (docs/suites.md)."
    )

    @property
    def condition(self) -> str:
        """The name of the one condition that is set."""
        return next(name for name in _CONDITIONS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_condition(self) -> Gate:
        given = [name for name in _CONDITIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a gate has exactly one condition of {', '.join(_CONDITIONS)}; this one has {', '.join(given) or 'none'}"
            )
        if given[0] in _BUDGETS and (self.metric or self.suite):
            raise ValueError(f"`{given[0]}` is about all rows and no metric; take `metric` and `suite` out")
        if self.against != "reference" and self.margin is None:
            raise ValueError(f"`against: {self.against}` goes with `margin`; this gate has `{given[0]}`")
        if given[0] not in _BUDGETS and not self.metric:
            raise ValueError(f"`{given[0]}` needs a `metric`")
        return self


_BUDGETS = ("latency_p95_ms", "cost_per_1k_usd")
_CONDITIONS = ("margin", "floor", "improvement", "zero_tolerance", *_BUDGETS)


class DecisionSettings(Section):
    """The gates, registered before the evaluation is looked at. Every gate must pass (no correction needed);
    several candidates are corrected for by Holm's method."""

    gates: tuple[Gate, ...] = Field(
        (),
        description="Empty: the default gates of the workload's type, each with margin 0.05. Tool calling: "
        "function_name_and_args (judge_tool_call where calls are judged), no_call, answered, and judge_similarity with a "
        "judge; structured: field_f1, schema_valid, exact_match; text: f1. One that applies to no row is left out.",
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="One-sided error rate of each verdict, over all candidates.")
    power: float = Field(0.8, gt=0.5, lt=1, description="Used to say how many rows a verdict needs.")
    looks: tuple[int, ...] = Field(
        (), description="Eval-row counts at which a verdict may be given, registered beforehand; alpha is spent over them."
    )
    expected_loss: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="What a candidate worth promoting is expected to lose against the reference; this and the two below "
        "size `split.eval_size: auto` and what `flywheel plan` says before there are scores. Never taken from scores.",
    )
    expected_gain: float = Field(
        0.1, gt=0, le=1, description="What it is expected to gain over its own base variant, for gates on `improvement`."
    )
    expected_discordance: float = Field(
        0.1, ge=0, le=1, description="Share of rows on which it is expected to disagree with a reference that can be wrong."
    )
    max_age_days: int = Field(30, ge=1, description="A decision older than this has expired.")

    @field_validator("looks")
    @classmethod
    def _growing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(count < 1 for count in value) or list(value) != sorted(set(value)):
            raise ValueError(f"looks are row counts that grow, such as [200, 400, 800]; {list(value)} was given")
        return value


class PromotionSettings(Section):
    """What happens after a `promote` verdict."""

    mode: Literal["manual"] = Field("manual", description="A person approves; nothing is swapped automatically.")
