"""The keys of `automation`: when new records start a turn of the flywheel by themselves."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from flywheel_assets.settings.section import Section, auto_or_a_number


class AutomationSettings(Section):
    """When new records start runs by themselves (the `reconcile` sensor). `flywheel run` obeys none of these keys."""

    min_new_records: int | Literal["auto"] = Field(
        "auto",
        description="New records of a workload that are waited for before its next turn. auto: a tenth of those it has, or "
        "as many again while more keep coming in.",
    )
    cooldown_minutes: float = Field(
        0, ge=0, description="Minutes between two turns of one workload that new records start; 0 means none."
    )
    max_lag_minutes: float = Field(
        60,
        gt=0,
        description="How old the records behind a decision may be while newer ones wait: then a turn begins however few "
        "they are. Kept while the machine keeps up; a longer cooldown_minutes wins.",
    )
    interval_s: int = Field(30, ge=5, description="Seconds between two looks of the sensor.")
    # Enough to keep every slot of the run queue busy between two ticks, few enough that a changed setting is obeyed soon.
    max_runs: int = Field(8, ge=1, description="Runs that the sensor keeps queued or under way at most.")

    @field_validator("min_new_records", mode="before")
    @classmethod
    def _auto_or_a_number(cls, value: Any) -> Any:
        return auto_or_a_number(value)
