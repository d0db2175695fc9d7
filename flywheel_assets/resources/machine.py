"""The machine: how its cores are shared out among what runs at once."""

from __future__ import annotations

import os

from flywheel_assets.settings import Settings


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def runs_at_once(settings: Settings) -> int:
    """How many Dagster runs `flywheel run` keeps in flight: `local.parallel_runs`, or one for every two cores.

    Two models that share two cores take longer than one after the other: both llama.cpp's and torch's threads spin while
    they wait for a core that the other one holds.
    """
    return settings.local.parallel_runs or max(1, cores() // 2)


def threads_of_a_server(settings: Settings) -> int:
    """`local.threads`, or a share of the cores for each run in flight."""
    return settings.local.threads or max(1, cores() // runs_at_once(settings))
