"""Journal: which phases MLflow was told to have begun, on disk, so that no run stays open whatever happens to the telling.

An entry is written before MLflow is asked for a run and removed when its end has arrived there. What stays behind (MLflow
was down at the end, an answer was lost, the process was killed) is ended by the next phase that reaches MLflow.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flywheel_assets.resources.json_files import read_json, write_json
from flywheel_assets.resources.processes import ProcessIdentity, this_process
from flywheel_assets.resources.telemetry.phases import Phase, PhaseStatus

# Longer than any telling takes: an end of a living process that is older than this will not arrive any more.
_LATE_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A phase that has begun, in the run of its `cell` where it has one.

    `status` and `at` (epoch seconds) are how and when it ended, None while it has not.
    """

    dagster_run: str
    phase: str
    started: float
    owner: str
    experiment: str
    cell: str | None
    flywheel_run: str
    status: str | None = None
    at: float | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether nobody is going to tell its end any more."""
        if ProcessIdentity.parse(self.owner).is_dead():
            return True
        return self.at is not None and self.at < time.time() - _LATE_S


class Journal:
    """The entries in a folder; one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begun(self, phase: Phase, experiment: str) -> None:
        """A phase is about to be told; `experiment` is the name of the one that its run is in."""
        self._write(phase, _entry(phase, experiment))

    def ended(self, phase: Phase, experiment: str, status: PhaseStatus, at: float) -> None:
        """Its end is about to be told."""
        self._write(phase, replace(_entry(phase, experiment), status=status.value, at=at))

    def told(self, phase: Phase) -> None:
        """Its end has arrived."""
        self._file(phase).unlink(missing_ok=True)

    def overdue(self) -> Iterator[tuple[Path, Entry]]:
        """What stayed behind; unlink the file once it is put right."""
        for path in sorted(self._folder.glob("*.json")):
            # Another process may put it right, and a half-written or older form is nobody's any more.
            with suppress(OSError, ValueError, TypeError):
                content = read_json(path)
                if content is not None and (entry := Entry(**content)).is_overdue:
                    yield path, entry

    def _write(self, phase: Phase, entry: Entry) -> None:
        write_json(self._file(phase), asdict(entry))

    def _file(self, phase: Phase) -> Path:
        identity = f"{phase.dagster_run} {phase.name} {phase.partition.path} {phase.started!r}"
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"


def _entry(phase: Phase, experiment: str) -> Entry:
    return Entry(
        dagster_run=phase.dagster_run,
        phase=phase.name,
        started=phase.started,
        owner=str(this_process()),
        experiment=experiment,
        cell=phase.partition.path if phase.partition.candidate else None,
        flywheel_run=phase.flywheel_run,
    )
