"""Exam: eval rows as dataset items, and what a model answered to them as an experiment on that dataset.

An experiment is, for the server, every trace that carries its attributes; the SDK's `run_experiment` writes them while it
asks a model. Ours was asked already: the same attributes are written from the evaluation's predictions.

What belongs here: rows to items, traces and scores, with content or without. What does not: sending, and when.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_assets.core import graph
from flywheel_assets.core.predictions import SUITES, ScoredPredictions
from flywheel_assets.core.rows import EvalRow, Json, Prediction
from flywheel_assets.resources.telemetry.langfuse.identity import digest, experiment_id, item_id, trace_id_of
from flywheel_assets.resources.telemetry.langfuse.observations import Observation, Trace, text_of
from flywheel_assets.resources.telemetry.langfuse.scores import Score

# The environment in which the SDK runs experiments; Langfuse's own views and our source know it.
ENVIRONMENT = "sdk-experiment"
_EXPERIMENT = "langfuse.experiment."

EXAMINED: Mapping[str, str] = {
    **{asset: variant.value for variant, asset in graph.EVALS.items()},
    graph.TEACHER_EVAL: "once more",
}
"""The evaluations on the rows of `datasets/base`, and what was examined there. Validation rows are in no dataset."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One evaluation as Langfuse sees it. `asked_at` (epoch seconds) is where its rows' times begin."""

    id: str
    name: str
    dataset_id: str
    workload: str
    metadata: Json
    asked_at: float

    @classmethod
    def of(
        cls,
        project: str,
        dataset_id: str,
        workload: str,
        who: str,
        answers: str,
        metadata: Json,
        asked_at: float,
    ) -> Experiment:
        """The experiment in which `who` gave these `answers` (a data version): told again, it is the same one."""
        name = f"{who} {answers[:8]}"
        identity = experiment_id(project, dataset_id, name)
        return cls(identity, name, dataset_id, workload, metadata, asked_at)


def chosen(rows: Sequence[EvalRow], max_rows: int) -> list[EvalRow]:
    """The rows that are told one by one: by the order of their ids, so that every candidate shows the same ones."""
    return sorted(rows, key=lambda row: row.row_id)[:max_rows]


def item_of(workload: str, row: EvalRow, *, content: bool) -> Json:
    """A row as a dataset item; without `content` only its id and its suites."""
    shown = _question(row, content=content)
    return {
        "id": item_id(workload, row.row_id),
        "input": shown,
        "expected_output": row.reference.to_json() if content else None,
        "metadata": _labels(row),
    }


def digest_of(item: Json) -> str:
    """Tells an item from the same one with other content."""
    return digest(json.dumps(item, sort_keys=True))


def row_traces(
    experiment: Experiment, rows: Sequence[EvalRow], found: ScoredPredictions, *, content: bool
) -> Iterator[Observation]:
    """One trace a row, linked to its dataset item. Only how long a row took is measured, not when it was asked."""
    answers = {prediction.row_id: prediction for prediction in found.predictions}
    for row in rows:
        if (answer := answers.get(row.row_id)) is not None:
            yield _row_trace(experiment, row, answer, content=content)


def row_scores(experiment: Experiment, rows: Sequence[EvalRow], found: ScoredPredictions, at: float) -> Iterator[Score]:
    """Every metric of every row to which it applies."""
    places = {row_id: place for place, row_id in enumerate(found.row_ids)}
    for row in rows:
        place = places.get(row.row_id)
        if place is None:
            continue
        trace = _row_trace_id(experiment, row)
        for metric, column in found.scores.items():
            if math.isfinite(column[place]):
                yield Score(metric, float(column[place]), at, ENVIRONMENT, trace=trace, observation=_row_span(trace))


def experiment_scores(experiment: Experiment, scores: Mapping[str, Json], at: float) -> Iterator[Score]:
    """The metrics' means, on the experiment itself."""
    for metric, found in scores.items():
        yield Score(metric, float(found["value"]), at, ENVIRONMENT, experiment=experiment.id, metadata=found)


def _row_trace_id(experiment: Experiment, row: EvalRow) -> str:
    return trace_id_of(f"{experiment.id}/{row.row_id}")


def _row_span(trace_id: str) -> str:
    return digest(f"{trace_id}/row")


def _row_trace(experiment: Experiment, row: EvalRow, answer: Prediction, *, content: bool) -> Observation:
    trace_id = _row_trace_id(experiment, row)
    item = item_id(experiment.workload, row.row_id)
    expected = text_of(row.reference.to_json()) if content else None
    attributes = {
        "id": experiment.id,
        "name": experiment.name,
        "metadata": json.dumps(experiment.metadata),
        "dataset.id": experiment.dataset_id,
        "item.id": item,
        "item.metadata": json.dumps(_labels(row)),
        "item.expected_output": expected,
        "item.root_observation_id": _row_span(trace_id),
    }
    output: Any = None
    if content:
        output = answer.error if answer.answer is None else answer.answer.to_json()
    latency_s = (answer.latency_ms or 0.0) / 1000
    return Observation(
        # In no session: rows by the hundred would hide the phases there. The experiment's metadata names the turn.
        trace=Trace(trace_id, "experiment-item-run", ENVIRONMENT),
        id=_row_span(trace_id),
        name="experiment-item-run",
        started=experiment.asked_at,
        ended=experiment.asked_at + latency_s,
        level="ERROR" if answer.error else None,
        message=(answer.error if content else "this row errored") if answer.error else None,
        input=_question(row, content=content),
        output=output,
        metadata={
            "experiment_name": experiment.name,
            "experiment_run_name": experiment.name,
            "dataset_id": experiment.dataset_id,
            "dataset_item_id": item,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            **_labels(row),
        },
        attributes={_EXPERIMENT + name: value for name, value in attributes.items() if value is not None},
    )


def _question(row: EvalRow, *, content: bool) -> Json:
    return row.request if content else {"row_id": row.row_id}


def _labels(row: EvalRow) -> Json:
    suites = {suite: getattr(row, f"suite_{suite}") for suite in SUITES}
    return {"row_id": row.row_id, "gold": str(row.gold), **{k: v for k, v in suites.items() if v is not None}}
