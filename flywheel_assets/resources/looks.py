"""The log of looks on disk: what was looked at, and what that spent of alpha, beside what people promoted.

What belongs here: keeping the log, taking it over from homes that had none, and starting over. What does not: what a look
spends (`core.looks`) and the verdict (`core.decisions`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
from filelock import FileLock

from flywheel_assets.core.gates import Gate
from flywheel_assets.core.graph import DECISION, Partition
from flywheel_assets.core.looks import Entry, Look, StartOver, entry_from_json, entry_to_json, with_look, with_start_over
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact, ArtifactStore
from flywheel_assets.resources.json_files import Damaged, read_json, write_json

_DECISION_FILE = "decision.json"
Record = Callable[[Look], None]


class LookLog:
    """Looks and start-overs, one file a workload: `looks/<workload>.json`, a list that only grows."""

    def __init__(self, home: Path, artifacts: ArtifactStore) -> None:
        self._folder = home / "looks"
        self._artifacts = artifacts

    def entries(self, workload: str) -> tuple[Entry, ...]:
        """Everything that was looked at, oldest first. In a home without a log: what its decisions tell of their looks."""
        kept = read_json(self._file(workload))
        if kept is None:
            return tuple(_told_by_decisions(self._artifacts.history(DECISION, Partition(workload))))
        try:
            return tuple(entry_from_json(value) for value in kept)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise Damaged(self._file(workload), error) from None

    def digest(self, workload: str, comparison: str | None) -> str:
        """A hash of the log without the looks at one comparison: what makes the decision on that comparison stale.

        Taking a look must not make its own decision stale.
        """
        others = [
            entry_to_json(entry)
            for entry in self.entries(workload)
            if not (isinstance(entry, Look) and entry.comparison == comparison)
        ]
        return hashlib.sha256(orjson.dumps(others, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    @contextmanager
    def deciding(self, workload: str) -> Iterator[tuple[tuple[Entry, ...], Record]]:
        """The log as it stands, and how to write down the look that is taken by it; nobody else writes meanwhile.

        The look must be written down before its verdict is published: a run that is killed in between finds it again.
        """
        with self._locked(workload) as entries:
            # From now on the log is a file, whatever becomes of the old decisions it was taken from.
            self._write(workload, entries)
            yield (
                entries,
                lambda look: self._write(workload, with_look(self.entries(workload), replace(look, time=_now()))),
            )

    def start_over(self, workload: str, *, who: str, why: str) -> StartOver:
        """Give a workload its whole alpha back. StartOverRefused as `core.looks.with_start_over` says."""
        start = StartOver(who.strip(), why.strip(), _now())
        with self._locked(workload) as entries:
            self._write(workload, with_start_over(entries, start, workload))
        return start

    @contextmanager
    def _locked(self, workload: str) -> Iterator[tuple[Entry, ...]]:
        file = self._file(workload)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            yield self.entries(workload)

    def _write(self, workload: str, entries: Sequence[Entry]) -> None:
        content = [entry_to_json(entry) for entry in entries]
        if read_json(self._file(workload)) != content:
            write_json(self._file(workload), content)

    def _file(self, workload: str) -> Path:
        return self._folder / f"{workload}.json"


def _told_by_decisions(decisions: Sequence[Artifact]) -> Iterator[Look]:
    """Every look that any decision ever published knows of, each once, in the order in which they were first told."""
    found: dict[Look, Look] = {}
    for decision in decisions:
        told = datetime.fromtimestamp(float(decision.manifest["created_at"]), UTC).isoformat(timespec="seconds")
        evidence: Json = orjson.loads((decision.path / _DECISION_FILE).read_bytes())["evidence"]
        # Absent from decisions made before looks were counted.
        looks = [Look.from_json(look) for look in evidence.get("looks_taken", ())]
        for place, look in enumerate(looks):
            own = evidence["look"] is not None and place == len(looks) - 1
            gates = tuple(Gate.from_json(gate) for gate in evidence["settings"]["gates"]) if own else None
            bare = replace(look, gates=None, time=None)
            if bare not in found or (found[bare].gates is None and gates is not None):
                found[bare] = replace(look, gates=look.gates or gates, time=told)
    yield from found.values()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
