"""The keys of `automation`: when new records start a turn of the flywheel by themselves."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class AutomationSettings(Section):
    """When new records start runs by themselves (the `reconcile` sensor). `flywheel run` obeys none of these keys."""

    min_new_records: int = Field(
        1, ge=1, description="New records of a workload that are waited for before its datasets are made again."
    )
    cooldown_minutes: float = Field(
        0, ge=0, description="Minutes between two turns of one workload that new records start; 0 means none."
    )
    interval_s: int = Field(30, ge=5, description="Seconds between two looks of the sensor.")
    # Enough to keep every slot of the run queue busy between two ticks, few enough that a changed setting is obeyed soon.
    max_runs: int = Field(8, ge=1, description="Runs that the sensor keeps queued or under way at most.")
