"""Marks by which something is made again though nothing it is keyed by changed: `flywheel run --again`.

A model that was replaced behind the same URL, or weights on another machine, change no key. A person says so, and the mark
enters the key of that one asset partition from then on: its versions so far are not reused, and answers that its evaluation
asked under another mark are not either. What belongs here: keeping marks. What does not: which targets are meant
(`flywheel_assets.again`) and what is stale (`core.planner`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel_assets.core.graph import EVALS, TEACHER_EVAL, Partition
from flywheel_assets.resources.json_files import Damaged, read_json, write_json

if TYPE_CHECKING:
    from flywheel_assets.core.planner import Target
    from flywheel_assets.resources.artifacts import Artifact

# The key of a settings slice that holds the mark; absent where nothing was ever asked for again.
AGAIN = "again"
_EVALUATIONS = (TEACHER_EVAL, *EVALS.values())


class AgainMarks:
    """The marks of one home: `again/<asset>/<partition>.json`. `assumed` are marks that only this object has, for a plan."""

    def __init__(self, home: Path, assumed: Mapping[Target, str]) -> None:
        self._folder = home / "again"
        self._assumed = assumed

    def of(self, asset: str, partition: Partition) -> str | None:
        """The latest mark of an asset partition; None where it was never asked for again."""
        assumed = self._assumed.get((asset, partition))
        found = read_json(self._file(asset, partition)) if assumed is None else None
        if found is not None and not (isinstance(found, dict) and "mark" in found):
            raise Damaged(self._file(asset, partition), "it holds no mark")
        return assumed if found is None else str(found["mark"])

    def of_evaluations(self, workload: str, candidates: Iterable[str]) -> dict[str, str]:
        """The marks of a workload's evaluations, by `<asset>@<partition path>`."""
        partitions = [Partition(workload), *(Partition(workload, candidate) for candidate in candidates)]
        found = {f"{asset}@{where.path}": self.of(asset, where) for asset in _EVALUATIONS for where in partitions}
        return {name: mark for name, mark in found.items() if mark is not None}

    def set(self, asset: str, partition: Partition, mark: str) -> None:
        """Replace the mark of an asset partition."""
        write_json(self._file(asset, partition), {"mark": mark})

    def is_pending(self, asset: str, partition: Partition, current: Artifact | None) -> bool:
        """Whether it is marked, and the current version was made before that."""
        mark = self.of(asset, partition)
        return mark is not None and (current is None or (current.manifest["settings"] or {}).get(AGAIN) != mark)

    def _file(self, asset: str, partition: Partition) -> Path:
        return self._folder / asset / f"{partition.path}.json"
