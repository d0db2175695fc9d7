"""The observer: tells Langfuse about phases, most important first, within the time a run has for it at its end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flywheel_assets.core import graph
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.predictions import read_predictions
from flywheel_assets.core.rows import EvalRow, Json
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing, ArtifactStore
from flywheel_assets.resources.sources.langfuse_api import Access
from flywheel_assets.resources.telemetry.langfuse import exam, story
from flywheel_assets.resources.telemetry.langfuse.identity import dataset_name, item_id, seed_of
from flywheel_assets.resources.telemetry.langfuse.memory import Memory
from flywheel_assets.resources.telemetry.langfuse.parallel import each
from flywheel_assets.resources.telemetry.langfuse.service import TIME_WAS_UP, Away, LangfuseService, NotTold, Project
from flywheel_assets.resources.telemetry.phases import Ended, Phase, PhaseStatus, Reading
from flywheel_assets.resources.telemetry.watch import FLUSH_S, KILLED_FLUSH_S
from flywheel_assets.settings import Settings

# What is left of the run's waiting time when we stop, so that a long dataset is no reason to leave the server alone.
_SPARE_S = 0.5
_BEGIN_S = 4.0
# The evaluation's predictions; its name is the assets' business, and stable.
_PREDICTIONS_FILE = "predictions.parquet"


def langfuse_observer(settings: Settings) -> LangfuseObserver:
    """The observer of the project that the environment names. Raises SourceError where its keys are missing."""
    access = Access.from_environment()
    memory = Memory(settings.home, access)
    told = settings.telemetry.langfuse
    artifacts = ArtifactStore(settings.home / "artifacts")
    return LangfuseObserver(LangfuseService(access, memory), memory, artifacts, told.rows, told.max_rows)


@dataclass
class LangfuseObserver:
    """Tells one project. `content` is whether rows leave with their content, `max_rows` how many of an evaluation."""

    service: LangfuseService
    memory: Memory
    artifacts: ArtifactStore
    content: bool
    max_rows: int
    _project: Project | None = None
    _curves: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))

    def begin(self, phase: Phase) -> None:
        """Make the phase visible; see `Observer`."""
        until = time.monotonic() + _BEGIN_S
        self._project = self.service.project(until)
        self.service.send([story.begun(phase)], until)
        self.memory.open(phase)

    def reading(self, phase: Phase, reading: Reading) -> None:
        """Kept for the end: a curve is shown whole."""
        self._curves[seed_of(phase)].append(reading)

    def end(self, phase: Phase, ended: Ended) -> None:
        """Tell the trace, its scores, then the rows. Raises NotTold with what was lost of it."""
        limit = KILLED_FLUSH_S if ended.status is PhaseStatus.KILLED else FLUSH_S
        until = time.monotonic() + limit - _SPARE_S - (time.time() - ended.at)
        curve = self._curves.pop(seed_of(phase), [])
        telling = _Telling()
        try:
            rows = _Rows(self, phase, ended, until, telling)
            trace = list(story.ended(phase, ended, curve, rows.summary(), content=self.content))
            telling.tell("observations of the trace", len(trace), lambda: self.service.send(trace, until))
            scores = story.scores_of(phase, ended)
            telling.tell("scores", len(scores), lambda: self.service.score(scores, until))
            rows.tell()
        finally:
            self.memory.close(phase)
        if telling.lost:
            raise NotTold("; ".join(telling.lost))

    def link(self, phase: Phase) -> str | None:
        """The trace's page."""
        return self.service.trace_url(self._project, story.trace_of(phase).id) if self._project else None

    def bury(self, dagster_runs: Sequence[str]) -> None:
        """Tell the end of the phases that those runs left open."""
        phases = self.memory.left_open(dagster_runs)
        if phases:
            until = time.monotonic() + _BEGIN_S
            self.service.send((story.killed(phase, time.time()) for phase in phases), until)
        for phase in phases:
            self.memory.close(phase)


@dataclass
class _Telling:
    """What was lost on the way, in words; once the server is away, nothing else is tried."""

    lost: list[str] = field(default_factory=list)
    away: bool = False

    def tell(self, what: str, number: int, tell: Callable[[], int]) -> None:
        """Tell `number` things called `what`; `tell` gives how many were taken. Notes how many were lost, and why."""
        if not number:
            return
        if self.away:
            self.lost.append(f"{number} {what}")
            return
        try:
            self.count(tell(), number, what)
        except NotTold as error:
            self.away = isinstance(error, Away)
            self.lost.append(f"{number} {what}: {error}")

    def count(self, told: int, number: int, what: str, why: str = TIME_WAS_UP) -> None:
        """Note what is missing of `number` things."""
        if told < number:
            self.lost.append(f"{number - told} of {number} {what}: {why}")


class _Rows:
    """The rows of one phase: those of a dataset that was built, or of an evaluation on it."""

    def __init__(self, observer: LangfuseObserver, phase: Phase, ended: Ended, until: float, telling: _Telling) -> None:
        self._observer, self._phase, self._ended = observer, phase, ended
        self._until, self._telling = until, telling
        self._service, self._memory = observer.service, observer.memory
        self._workload = phase.partition.workload
        made = {artifact.asset: artifact for artifact in ended.artifacts if artifact.state != "skipped"}
        self._built = made.get(graph.BASE)
        self._evaluated = next((made[asset] for asset in exam.EXAMINED if asset in made), None)
        self._all = self._eval_rows() if observer.max_rows else []
        self._rows = exam.chosen(self._all, observer.max_rows)

    def summary(self) -> Json:
        """How many rows are told one by one, for the trace."""
        return {"rows": {"told": len(self._rows), "of": len(self._all)}} if self._all else {}

    def tell(self) -> None:
        """Dataset, items, and where models were asked, the experiment."""
        self._telling.tell("rows", len(self._rows), self._tell_rows)

    def _tell_rows(self) -> int:
        dataset = self._dataset()
        self._items(dataset)
        if self._evaluated is not None:
            self._experiment(dataset, self._evaluated)
        return len(self._rows)

    def _eval_rows(self) -> list[EvalRow]:
        """The rows of the exam; none where a newer one has just taken its place."""
        base = self._built
        try:
            if base is None and self._evaluated is not None:
                base = self._observer.artifacts.current(graph.BASE, Partition(self._workload))
            return [] if base is None else read_eval_rows(base.path)
        except (ArtifactMissing, OSError, ValueError) as error:
            self._telling.lost.append(f"rows: {error}")
            return []

    def _dataset(self) -> str:
        description = f"Eval rows of the workload {self._workload}, kept by flywheel_assets."
        metadata = {"workload": self._workload, "content": self._observer.content}
        return self._service.dataset(dataset_name(self._workload), description, metadata, self._until)

    def _items(self, dataset: str) -> None:
        """Send what the dataset does not hold yet, and take out what left the exam, such as forgotten traces."""
        sent = self._memory.sent_items(self._workload, dataset)
        items = [exam.item_of(self._workload, row, content=self._observer.content) for row in self._rows]
        digests = {item["id"]: exam.digest_of(item) for item in items}
        new = [item for item in items if sent.get(item["id"]) != digests[item["id"]]]
        name = dataset_name(self._workload)
        told, why = each(new, lambda item: self._service.put_item(name, item, self._until), until=self._until)
        sent |= {item["id"]: digests[item["id"]] for item in told}
        self._telling.count(len(told), len(new), "dataset items", why)
        if self._built is not None:
            known = {item_id(self._workload, row.row_id) for row in self._all}
            gone = [item for item in sent if item not in known]
            out, why = each(gone, lambda item: self._service.delete_item(item, self._until), until=self._until)
            for item in out:
                del sent[item]
            self._telling.count(len(out), len(gone), "removals of dataset items", why)
        self._memory.keep_items(self._workload, dataset, sent)

    def _experiment(self, dataset: str, evaluated: Artifact) -> None:
        found = read_predictions(evaluated.path / _PREDICTIONS_FILE)
        experiment = self._as_experiment(dataset, evaluated)
        url = self._service.experiment_url(self._project(), experiment.id)
        seen = story.event_of(
            story.trace_of(self._phase), "experiment", self._ended.at, {"name": experiment.name, "url": url}
        )
        traces = [seen, *exam.row_traces(experiment, self._rows, found, content=self._observer.content)]
        self._telling.tell("traces of rows", len(traces), lambda: self._service.send(traces, self._until))
        at = self._ended.at
        scores = [
            *exam.experiment_scores(experiment, evaluated.summary.get("scores") or {}, at),
            *exam.row_scores(experiment, self._rows, found, at),
        ]
        self._telling.tell("scores of rows", len(scores), lambda: self._service.score(scores, self._until))

    def _project(self) -> Project:
        return self._service.project(self._until)

    def _as_experiment(self, dataset: str, evaluated: Artifact) -> exam.Experiment:
        phase = self._phase
        asked = next((span.started for span in self._ended.spans if span.name == "asking"), phase.started)
        who = f"{phase.partition.candidate or 'teacher'} {exam.EXAMINED[evaluated.asset]}"
        trace = story.trace_of(phase)
        metadata = {**trace.metadata, "evaluation_trace": trace.id, "version": evaluated.version}
        return exam.Experiment.of(
            self._project().id,
            dataset,
            workload=self._workload,
            who=who,
            answers=evaluated.data_version,
            metadata=metadata,
            asked_at=asked,
        )
