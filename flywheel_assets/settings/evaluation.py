"""The keys of `evaluation`: how eval rows are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flywheel_assets.settings.section import Section


class EvaluationSettings(Section):
    """How eval rows are sent to a model. Decoding is greedy (temperature 0), and that is not a setting."""

    concurrency: int = Field(
        4,
        ge=1,
        description="Requests in flight at once. With more than 1 a model computes several in one batch, whose rounding "
        "lets a few answers differ from one evaluation to the next; 1 makes a local model's repeatable, and is slower.",
    )
    timeout_s: float = Field(120, gt=0, description="Seconds one request may take.")
    max_retries: int = Field(
        4, ge=0, description="Further tries after 429, 5xx, time-outs and failed connections; nothing else."
    )
    max_tokens: int = Field(512, ge=1, description="Bound on generated tokens where the logged request sets none.")
    max_error_share: float = Field(0.05, ge=0, le=1, description="A report with a larger share of errored rows fails.")
    tool_eval_type: Literal["metric", "judge"] = Field(
        "metric",
        description="How tool calls are scored: by metrics, or also by a `judge`, whose column judge_tool_call then takes "
        "the place of function_name_and_args in the default gates (docs/judge.md).",
    )
