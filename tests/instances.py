"""Dagster instances for tests that make many runs."""

from __future__ import annotations

from pathlib import Path

from dagster import DagsterInstance


def local_instance(folder: Path) -> DagsterInstance:
    """An instance in a folder whose event log is one file: Dagster's usual one makes a database a run and migrates each,
    which is a third of the time of a turn. The usual one is what end-to-end tests have."""
    folder.mkdir(parents=True, exist_ok=True)
    history = {"base_dir": str(folder / "history")}
    overrides = {
        "telemetry": {"enabled": False},
        "run_storage": {"module": "dagster._core.storage.runs", "class": "SqliteRunStorage", "config": history},
        "event_log_storage": {
            "module": "dagster._core.storage.event_log",
            "class": "ConsolidatedSqliteEventLogStorage",
            "config": history,
        },
        "schedule_storage": {
            "module": "dagster._core.storage.schedules",
            "class": "SqliteScheduleStorage",
            "config": {"base_dir": str(folder / "schedules")},
        },
    }
    return DagsterInstance.local_temp(str(folder), overrides=overrides)
