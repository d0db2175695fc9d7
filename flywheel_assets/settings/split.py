"""`split` in flywheel.yaml: which rows are trained on, and which exam is drawn."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator

from flywheel_assets.settings.section import Section, auto_or_a_number


class SplitStrategy(StrEnum):
    """How eval rows are drawn: over all of the eval side, or only rows newer than the training window."""

    RANDOM = "random"
    TIME = "time"


class SplitSettings(Section):
    """How a workload's records become eval, training and validation rows."""

    eval_size: int | Literal["auto"] = Field(
        "auto",
        description="Eval rows drawn at most. auto: computed from the gates when the first dataset is built, never from "
        "scores, and fixed from then on (100 where the workload is older than this setting). A number is followed at every "
        "build.",
    )
    eval_share: float | None = Field(
        None,
        gt=0.0,
        le=0.5,
        description="Share of the conversations on the eval side, fixed when the first dataset is built. null: 0.3 with "
        "`eval_size: auto`; with a number, that many of the records then seen, half of them at most.",
    )
    max_eval_calls: int = Field(
        10_000, ge=1, description="Model calls that one exam may cost over all variants: a bound on what `auto` computes."
    )
    draw: Literal["proportional", "balanced"] | None = Field(
        None,
        description="proportional: classes keep the shares they have in the traffic. balanced: evenly over tools, so that "
        "means are about that mix. null: what the workload began with; proportional for new ones.",
    )
    max_rows_per_conversation: int | None = Field(
        None,
        ge=1,
        description="Rows of one conversation that an exam draws at most. null: what the workload began with; 3 for new "
        "ones. A large number lifts the limit.",
    )
    val_ratio: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the training side kept for validation.")
    min_total_records: int = Field(50, ge=2, description="Fewer usable records than this is a refusal.")
    limit: int | None = Field(None, ge=1, description="Training rows drawn at most; null means all of them.")
    random_seed: int = Field(0, description="Seed of every random choice; 0 is a seed like any other.")
    strategy: SplitStrategy = Field(SplitStrategy.RANDOM, description="random, or time: examine on the newest rows.")
    rare_class_rows: int = Field(
        5, ge=1, description="Tools with fewer rows than this are pooled into one class when rows are balanced."
    )
    rare_class_floor: int = Field(
        0,
        ge=0,
        description="A class that a proportional draw gives fewer rows than this gets further ones, up to it. They are "
        "reported as the suite `draw` and count in no mean and no gate. 0: none.",
    )

    @field_validator("eval_size", mode="before")
    @classmethod
    def _auto_or_a_number(cls, value: Any) -> Any:
        return auto_or_a_number(value)
