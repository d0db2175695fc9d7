"""Runs: experiments and runs in our words, over MLflow's store of them.

What belongs here: what MLflow is asked to do. What does not: which facts are told (`facts`) and when (`observer`).
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from flywheel_assets.resources.telemetry.mlflow.facts import CELL, DAGSTER_RUN, FLYWHEEL_RUN, PHASE, STARTED, Point
from flywheel_assets.resources.telemetry.mlflow.stores import Store, already_exists
from flywheel_assets.resources.telemetry.phases import PhaseStatus

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
# MLflow's limits of one request.
_PARAMS_AT_ONCE, _TAGS_AT_ONCE, _METRICS_AT_ONCE = 100, 100, 500
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Input:
    """A dataset that a run was made from: its name, its version, and what it was used for."""

    name: str
    version: str
    context: str
    source: str


class Runs:
    """The experiments and runs of a tracking store. MlflowException or OSError where MLflow refuses or is gone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._experiments: dict[str, str] = {}

    def experiment(self, name: str) -> str:
        """The id of an experiment, made where it is missing. Raises MlflowException where somebody has deleted it."""
        if name not in self._experiments:
            found = self._store.get_experiment_by_name(name)
            try:
                self._experiments[name] = found.experiment_id if found else self._store.create_experiment(name, None, [])
            except MlflowException as error:
                if not already_exists(error):
                    raise
                self._experiments[name] = self._store.get_experiment_by_name(name).experiment_id
        return self._experiments[name]

    def begin(
        self, experiment: str, name: str, tags: Mapping[str, str], *, started: float, parent: str | None = None
    ) -> str:
        """Make a run that is under way; its id. `started` in epoch seconds."""
        nested = {PARENT: parent} if parent else {}
        own = {"mlflow.source.name": "flywheel", "mlflow.source.type": "JOB", "mlflow.user": getpass.getuser()}
        all_tags = [RunTag(key, value) for key, value in {**tags, **nested, **own, "mlflow.runName": name}.items()]
        made = self._store.create_run(experiment, getpass.getuser(), _ms(started), all_tags, name)
        return str(made.info.run_id)

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        points: Sequence[Point] = (),
        tags: Mapping[str, str] | None = None,
        at: float = 0.0,
    ) -> None:
        """Write down facts of a run; `at` (epoch seconds) is the time of the metrics that have no step."""
        numbers = [Metric(name, value, _ms(at), 0) for name, value in (metrics or {}).items()]
        numbers += [Metric(point.name, point.value, _ms(point.at), point.step) for point in points]
        facts = [Param(name, value) for name, value in (params or {}).items()]
        labels = [RunTag(name, value) for name, value in (tags or {}).items()]
        while numbers or facts or labels:
            self._store.log_batch(run, numbers[:_METRICS_AT_ONCE], facts[:_PARAMS_AT_ONCE], labels[:_TAGS_AT_ONCE])
            numbers, facts, labels = numbers[_METRICS_AT_ONCE:], facts[_PARAMS_AT_ONCE:], labels[_TAGS_AT_ONCE:]

    def log_inputs(self, run: str, inputs: Sequence[Input]) -> None:
        """Write down the datasets that a run was made from."""
        told = [
            DatasetInput(
                Dataset(name=one.name, digest=one.version[:36], source_type="flywheel", source=one.source),
                [InputTag("mlflow.data.context", one.context)],
            )
            for one in inputs
        ]
        if told:
            self._store.log_inputs(run, datasets=told)

    def close(self, run: str, status: PhaseStatus, at: float) -> None:
        """End a run; `at` in epoch seconds."""
        self._store.update_run_info(run, RunStatus.from_string(status.value), _ms(at), None)

    def cell(self, experiment: str, cell: str, flywheel_run: str, tags: Mapping[str, str], *, started: float) -> str:
        """The run of a cell in one turn of the loop, under way; found or made. The caller keeps others from doing so too."""
        found = self._search([experiment], {CELL: cell, FLYWHEEL_RUN: flywheel_run})
        if not found:
            marked = {**tags, CELL: cell, FLYWHEEL_RUN: flywheel_run}
            return self.begin(experiment, cell.rpartition("/")[2], marked, started=started)
        run = found[0]
        if run.info.status != RunStatus.to_string(RunStatus.RUNNING):
            self._store.update_run_info(run.info.run_id, RunStatus.RUNNING, None, None)
        return str(run.info.run_id)

    def follow_children(self, experiment: str, run: str) -> None:
        """Give the run of a cell the status of what is nested in it: under way, or else the worst of their ends."""
        ends = {child.info.status for child in self._search([experiment], {PARENT: run})}
        if RunStatus.to_string(RunStatus.RUNNING) in ends:
            return
        worst = next((s for s in (PhaseStatus.FAILED, PhaseStatus.KILLED) if s.value in ends), PhaseStatus.FINISHED)
        self.close(run, worst, time.time())

    def follow_cell(self, experiment: str, cell: str, flywheel_run: str) -> None:
        """The same for the run of a cell that nobody has at hand, where it is still under way."""
        for run in self._search([experiment], {CELL: cell, FLYWHEEL_RUN: flywheel_run}):
            if run.info.status == RunStatus.to_string(RunStatus.RUNNING):
                self.follow_children(experiment, run.info.run_id)

    def close_left(self, experiments: Sequence[str], marks: Mapping[str, str], status: PhaseStatus, at: float) -> int:
        """End what is still open of runs with these tags, and let the cells' runs follow; how many there were."""
        left = [run for run in self._search(experiments, marks) if run.info.status == RunStatus.to_string(RunStatus.RUNNING)]
        for run in left:
            self.close(run.info.run_id, status, at)
        closed = {run.info.run_id for run in left}
        parents = {(run.info.experiment_id, run.data.tags.get(PARENT)) for run in left}
        for experiment, parent in parents:
            # A judge is nested in its evaluation, which is no cell and has an end of its own.
            if parent and parent not in closed and CELL in self._store.get_run(parent).data.tags:
                self.follow_children(experiment, parent)
        return len(left)

    def experiments_like(self, prefix: str) -> list[str]:
        """The ids of the experiments whose names begin like this."""
        quoted = prefix.replace("'", "")
        found = self._store.search_experiments(max_results=_PAGE, filter_string=f"name LIKE '{quoted}%'")
        return [experiment.experiment_id for experiment in found]

    def _search(self, experiments: Sequence[str], marks: Mapping[str, str]) -> list[Any]:
        if not experiments:
            return []
        wanted = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in marks.items())
        return list(self._store.search_runs(experiments, wanted, ViewType.ACTIVE_ONLY, _PAGE))


def marks_of(dagster_run: str, phase: str | None = None, started: float | None = None) -> dict[str, str]:
    """The tags by which the runs of a Dagster run, or of one phase of it, are found again."""
    marks = {DAGSTER_RUN: dagster_run, PHASE: phase, STARTED: None if started is None else repr(started)}
    return {key: value for key, value in marks.items() if value}


def points_at(step: int, values: Mapping[str, float], at: float) -> Iterable[Point]:
    """Numbers of one step."""
    return (Point(step, name, value, at) for name, value in values.items())


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
