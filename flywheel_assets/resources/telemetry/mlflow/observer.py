"""The observer: a run a phase. One a cell and turn holds those of its cell, and a judge's is in that of its evaluation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import orjson
from filelock import FileLock
from mlflow.exceptions import MlflowException

from flywheel_assets.core.catalog import CATALOG_FILE
from flywheel_assets.core.graph import ADAPTER, BASE, CATALOG, TRAIN
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.telemetry.mlflow import facts
from flywheel_assets.resources.telemetry.mlflow.address import Address
from flywheel_assets.resources.telemetry.mlflow.journal import Journal
from flywheel_assets.resources.telemetry.mlflow.registry import Registry
from flywheel_assets.resources.telemetry.mlflow.runs import NOTE, Input, Runs, marks_of, points_at
from flywheel_assets.resources.telemetry.mlflow.stores import open_models, open_runs
from flywheel_assets.resources.telemetry.phases import Ended, Phase, PhaseKind, PhaseStatus, Reading
from flywheel_assets.settings import Settings

# A lock is held for a few requests; who waits longer than this has MLflow to blame.
_LOCK_S = 4.0
# No workload's slug begins like this.
_OF_ALL = "_all"
_CONTEXTS: Mapping[str, str] = {TRAIN: "training", BASE: "evaluation"}

Key = tuple[str, str, str, float]


@dataclass(slots=True)
class _Open:
    """A run that is under way; `cell` is the run of its cell, `logged` the steps of each number that MLflow has."""

    run: str
    experiment: str
    cell: str | None
    logged: set[tuple[str, int]] = field(default_factory=set)


class MlflowObserver:
    """Tells MLflow; an `Observer`. Methods raise whatever MLflow raises, after at most a few bounded requests."""

    def __init__(self, settings: Settings, address: Address) -> None:
        """Opens a store on this machine, which takes seconds the first time; reaches nothing over the network."""
        self._settings, self._address = settings, address
        self._folder = settings.home / "telemetry" / "mlflow"
        self._journal = Journal(self._folder / "open")
        self._open: dict[Key, _Open] = {}
        self._runs_of = Runs(open_runs(address)) if address.is_server or address.local else None
        self._registry_of: Registry | None = None

    def begin(self, phase: Phase) -> None:
        """Make the run, with its settings and what it is made from."""
        name = self._experiment_name(phase.partition.workload)
        self._journal.begun(phase, name)
        experiment = self._runs.experiment(name)
        judged = self._evaluation_of(phase)
        tags = {**facts.tags_of(phase), NOTE: facts.description_of(phase)}
        if phase.partition.candidate and judged is None:
            with self._cell_lock(phase):
                cell = self._cell(experiment, phase)
                run = self._runs.begin(experiment, phase.name, tags, started=phase.started, parent=cell)
            opened = _Open(run, experiment, cell)
        else:
            parent = judged.run if judged else None
            run = self._runs.begin(experiment, phase.name, tags, started=phase.started, parent=parent)
            opened = _Open(run, experiment, None)
        self._open[_key(phase)] = opened
        if phase.kind is not PhaseKind.JUDGE:
            self._runs.log(run, params=facts.params_of(phase))
            self._runs.log_inputs(run, list(_inputs(phase)))
        self._settle()

    def reading(self, phase: Phase, reading: Reading) -> None:
        """Log the numbers of a step."""
        opened = self._open[_key(phase)]
        self._runs.log(opened.run, points=list(points_at(reading.step, reading.values, reading.at)))
        opened.logged |= {(name, reading.step) for name in reading.values}

    def end(self, phase: Phase, ended: Ended) -> None:
        """Log what came of it, end the run, and keep the registry to what is decided."""
        self._journal.ended(phase, self._experiment_name(phase.partition.workload), ended.status, ended.at)
        opened = self._open.pop(_key(phase))
        missing = [point for point in facts.curve_of(phase, ended) if (point.name, point.step) not in opened.logged]
        tags = {**facts.outcome_tags(ended), NOTE: facts.description_of(phase, ended)}
        try:
            self._runs.log(opened.run, metrics=facts.metrics_of(ended), points=missing, tags=tags, at=ended.at)
        finally:
            # Whatever MLflow does not like about the facts, the run must not stay open.
            self._runs.close(opened.run, ended.status, ended.at)
        if opened.cell is not None:
            with self._cell_lock(phase):
                self._runs.log(opened.cell, metrics=facts.scores_by_variant(ended), at=ended.at)
                self._runs.follow_children(opened.experiment, opened.cell)
        self._journal.told(phase)
        self._register(ended.artifacts, opened)

    def link(self, phase: Phase) -> str | None:
        """The run's page; for a store without a server, where `mlflow ui` shows it."""
        opened = self._open.get(_key(phase))
        return None if opened is None else self._address.page_of(opened.experiment, opened.run)

    def bury(self, dagster_runs: Sequence[str]) -> None:
        """End what is open of killed Dagster runs, users' own runs through dagster-mlflow included."""
        pattern = self._settings.telemetry.mlflow.experiment
        experiments = self._runs.experiments_like(pattern.partition("{")[0])
        for dagster_run in dagster_runs:
            self._runs.close_left(experiments, marks_of(dagster_run), PhaseStatus.KILLED, time.time())
        self._settle()

    @property
    def _runs(self) -> Runs:
        if self._runs_of is None:
            # A database of somebody's: reached now, when the time for it is counted.
            self._runs_of = Runs(open_runs(self._address))
        return self._runs_of

    def _registry(self) -> Registry | None:
        pattern = self._settings.telemetry.mlflow.registered_model
        if pattern is not None and self._registry_of is None:
            store = open_models(self._address)
            self._registry_of = Registry(store, self._settings, self._address, pattern, self._folder / "locks")
        return self._registry_of

    def _register(self, artifacts: Sequence[Artifact], opened: _Open) -> None:
        for artifact in artifacts:
            if artifact.asset == ADAPTER and artifact.state == "ok" and (registry := self._registry()) is not None:
                registry.register_adapter(artifact, opened.run)
            if artifact.asset == CATALOG and (registry := self._registry()) is not None:
                registry.follow(orjson.loads((artifact.path / CATALOG_FILE).read_bytes()))

    def _experiment_name(self, workload: str) -> str:
        return self._settings.telemetry.mlflow.experiment.format(workload=workload or _OF_ALL)

    def _evaluation_of(self, phase: Phase) -> _Open | None:
        """The run that a judge is nested in."""
        if phase.kind is not PhaseKind.JUDGE:
            return None
        of = (phase.dagster_run, phase.assets[0], phase.partition.path)
        return next((opened for key, opened in self._open.items() if key[:3] == of), None)

    def _cell(self, experiment: str, phase: Phase) -> str:
        tags = {f"flywheel/{name}": getattr(phase.partition, name) for name in ("workload", "candidate")}
        return self._runs.cell(experiment, phase.partition.path, phase.flywheel_run, tags, started=phase.started)

    @contextmanager
    def _cell_lock(self, phase: Phase) -> Iterator[None]:
        """One process at a time finds, makes or ends the run of a cell."""
        name = re.sub(r"[^\w.-]", "+", f"{phase.partition.path}@{phase.flywheel_run}")
        path = self._folder / "locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=_LOCK_S):
            yield

    def _settle(self) -> None:
        """End what stayed open in MLflow because its end could not be told when it was time."""
        for path, entry in self._journal.overdue():
            # What MLflow refuses (somebody has deleted the experiment) it will refuse for ever.
            with suppress(MlflowException):
                experiment = self._runs.experiment(entry.experiment)
                marks = marks_of(entry.dagster_run, entry.phase, entry.started)
                status = PhaseStatus(entry.status or PhaseStatus.KILLED)
                self._runs.close_left([experiment], marks, status, entry.at or time.time())
                if entry.cell is not None:
                    self._runs.follow_cell(experiment, entry.cell, entry.flywheel_run)
            path.unlink(missing_ok=True)


def _key(phase: Phase) -> Key:
    return phase.dagster_run, phase.name, phase.partition.path, phase.started


def _inputs(phase: Phase) -> Iterator[Input]:
    """The datasets among what a phase is made from."""
    for versions in phase.inputs.values():
        for source, version in versions.items():
            asset = source.partition("@")[0]
            if asset in _CONTEXTS:
                where = orjson.dumps({"asset": asset, "partition": source.partition("@")[2], "data_version": version})
                yield Input(source, version, _CONTEXTS[asset], where.decode())
