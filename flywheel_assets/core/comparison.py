"""Comparison: every variant of every candidate of one workload beside each other, holes included.

What belongs here: the leaderboard, and the per-row scores a decision is made from, so that a changed gate decides again
without a model call. What does not: the verdict (`core.decisions`) and prose (`core.report`).

The reference is the teacher's logged answers, scored with the same metrics. Where nobody corrected them they are what the
rows are examined against, so they are right by construction: agreement with them is not accuracy.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.datasets.exam import meaning_of
from flywheel_assets.core.judge import reference_scores
from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.predictions import SUITES, EvalReport, Score, ScoredPredictions, summarize
from flywheel_assets.core.records import DEFAULT_SOURCE
from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant, WorkloadType

Columns = dict[str, NDArray[np.float64]]

TEACHER_NOTE = "the teacher's logged answers; they are what rows are examined against, so they are right by construction"


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What became of one variant of one candidate, as the assets found it.

    `state` is `ok` exactly when `report` and `evaluation` are given; otherwise `failed`, `skipped` or `missing`, and
    `reason` says why. `derived_from` labels a model that was derived from another. `version` names the evaluation artifact,
    `adapter_version` the adapter it ran with, and `answered_by` (a hash) the model, template and prefix that answered, None
    where that was not recorded.
    """

    candidate: str
    variant: Variant
    state: str
    reason: str | None = None
    report: EvalReport | None = None
    evaluation: ScoredPredictions | None = None
    derived_from: str | None = None
    version: str | None = None
    adapter_version: str | None = None
    answered_by: str | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One line of the leaderboard, and behind it the scores of every row, in the order of `row_ids`."""

    candidate: str
    variant: Variant
    state: str
    reason: str | None
    derived_from: str | None
    version: str | None
    adapter_version: str | None
    report: EvalReport | None
    row_ids: tuple[str, ...]
    scores: Columns
    errored: NDArray[np.bool_]
    answered_by: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it was evaluated."""
        return self.state == "ok"

    @property
    def label(self) -> str:
        """How a person names it: candidate and variant."""
        return f"{self.candidate} ({self.variant})"

    def to_json(self) -> Json:
        """A JSON-ready form; NaN becomes null."""
        return {
            "candidate": self.candidate,
            "variant": self.variant.value,
            "state": self.state,
            "reason": self.reason,
            "derived_from": self.derived_from,
            "version": self.version,
            "adapter_version": self.adapter_version,
            "report": None if self.report is None else self.report.to_json(),
            "row_ids": list(self.row_ids),
            "scores": _columns_to_json(self.scores),
            "errored": [bool(flag) for flag in self.errored],
            "answered_by": self.answered_by,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Arm:
        """The inverse of `to_json`."""
        fixed = {
            "variant": Variant(value["variant"]),
            "report": None if value["report"] is None else EvalReport.from_json(value["report"]),
            "row_ids": tuple(value["row_ids"]),
            "scores": _columns_from_json(value["scores"]),
            "errored": np.array(value["errored"], dtype=bool),
        }
        return cls(**{**value, **fixed})


@dataclass(frozen=True, slots=True)
class Comparison:
    """All arms of one workload, the reference they are measured against, and the rows they were asked.

    `reference` holds the reference's score of each row, `reference_scores` their means; `clusters` and `row_ids` are in the
    order of the eval set, as are the labels in `suites`, by suite. `arms` are in the order in which they were given.
    `eval_sources` counts the rows by the source of their records; empty where it was not recorded. `gold` counts them by
    whose word their answer is right on (`core.datasets.gold`). `reference_cost_per_1k_usd` is what the teacher cost when
    this was compared, None where nobody knows. `teacher` holds the scores of the teacher asked once more, in the order of
    `row_ids`, and `ceiling` their means; both are empty where it was not asked. `exam` says how the rows were drawn
    (`core.datasets.exam.Exam`), `reference_latency_ms` holds `p50` and `p95` of the teacher's answers as they were logged,
    over `records`, and `condemned_gold` counts the `rows` whose reference answer somebody disliked (`core.datasets.gold`),
    `of` all. These three are empty where nobody knows. `dataset_version` names the eval set's artifact, which differs from
    home to home; `dataset_meaning` is its data version (None: made before it was recorded).
    """

    workload: str
    workload_type: WorkloadType
    dataset_version: str
    row_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    reference: Columns
    reference_scores: dict[str, Score]
    arms: tuple[Arm, ...]
    reference_note: str = TEACHER_NOTE
    notes: tuple[str, ...] = field(default=())
    eval_sources: dict[str, int] = field(default_factory=dict)
    reference_cost_per_1k_usd: float | None = None
    suites: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    gold: dict[str, int] = field(default_factory=dict)
    teacher: Columns = field(default_factory=dict)
    ceiling: dict[str, Score] = field(default_factory=dict)
    exam: Json = field(default_factory=dict)
    reference_latency_ms: dict[str, float | int | None] = field(default_factory=dict)
    condemned_gold: dict[str, int] = field(default_factory=dict)
    dataset_meaning: str | None = None

    @property
    def sources_note(self) -> str:
        """What a reader must know where not all rows are traffic; empty where they are."""
        if not self.eval_sources.keys() - {DEFAULT_SOURCE}:
            return ""
        by_size = sorted(self.eval_sources.items(), key=lambda source: (-source[1], source[0]))
        counts = ", ".join(f"{count} of {name}" for name, count in by_size)
        if DEFAULT_SOURCE in self.eval_sources:
            return f"Examined on rows of several sources, {counts}: the verdict holds for this mix of them."
        return f"Examined on rows that are no production traffic: {counts}."

    @property
    def condemned_note(self) -> str:
        """What a reader must know where people disliked reference answers; empty where nobody did."""
        rows, of = self.condemned_gold.get("rows", 0), self.condemned_gold.get("of", 0)
        if not rows:
            return ""
        share = f"{100 * rows / of:.0f}%" if 200 * rows >= of else "Less than 1%"
        return (
            f"{share} of the eval rows' reference answers ({rows:,} of {of:,}) were disliked by a person (feedback below 0, "
            "or of 0 where none is lower): a model that agrees with them is no better. Set cleaning.min_feedback to leave "
            "them out, or log corrections."
        )

    @property
    def evaluated(self) -> tuple[Arm, ...]:
        """The arms that have scores."""
        return tuple(arm for arm in self.arms if arm.is_ok)

    @property
    def holes(self) -> tuple[Arm, ...]:
        """The arms that have none, with their reasons."""
        return tuple(arm for arm in self.arms if not arm.is_ok)

    def to_json(self) -> Json:
        """A JSON-ready form; `from_json` is its inverse."""
        return {
            "workload": self.workload,
            "workload_type": self.workload_type.value,
            "dataset_version": self.dataset_version,
            "dataset_meaning": self.dataset_meaning,
            "reference_note": self.reference_note,
            "notes": list(self.notes),
            "eval_sources": self.eval_sources,
            "gold": self.gold,
            "exam": self.exam,
            "teacher": _columns_to_json(self.teacher),
            "ceiling": {metric: asdict(score) for metric, score in self.ceiling.items()},
            "reference_cost_per_1k_usd": self.reference_cost_per_1k_usd,
            "reference_latency_ms": self.reference_latency_ms,
            "condemned_gold": self.condemned_gold,
            "leaderboard": self.table(),
            "reference_scores": {metric: asdict(score) for metric, score in self.reference_scores.items()},
            "row_ids": list(self.row_ids),
            "clusters": list(self.clusters),
            "suites": {suite: list(labels) for suite, labels in self.suites.items()},
            "reference": _columns_to_json(self.reference),
            "arms": [arm.to_json() for arm in self.arms],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """The comparison `to_json` gave (its leaderboard is derived, and not read)."""
        return cls(
            workload=value["workload"],
            workload_type=WorkloadType(value["workload_type"]),
            dataset_version=value["dataset_version"],
            row_ids=tuple(value["row_ids"]),
            clusters=tuple(value["clusters"]),
            reference=_columns_from_json(value["reference"]),
            reference_scores={metric: Score(**score) for metric, score in value["reference_scores"].items()},
            arms=tuple(Arm.from_json(arm) for arm in value["arms"]),
            reference_note=value["reference_note"],
            notes=tuple(value["notes"]),
            # Absent from comparisons made before they were recorded.
            eval_sources=value.get("eval_sources", {}),
            dataset_meaning=value.get("dataset_meaning"),
            reference_cost_per_1k_usd=value.get("reference_cost_per_1k_usd"),
            suites={suite: tuple(labels) for suite, labels in value.get("suites", {}).items()},
            gold=value.get("gold", {}),
            teacher=_columns_from_json(value.get("teacher", {})),
            ceiling={metric: Score(**score) for metric, score in value.get("ceiling", {}).items()},
            exam=value.get("exam", {}),
            reference_latency_ms=value.get("reference_latency_ms", {}),
            condemned_gold=value.get("condemned_gold", {}),
        )

    def table(self) -> list[Json]:
        """The leaderboard as flat rows, the reference first; every row has every key, None where there is nothing."""
        metrics = list(self.reference)
        reference = {"candidate": "(reference)", "variant": "teacher", "state": "ok", "reason": self.reference_note}
        rows: list[Json] = [{**reference, **_flat_scores(self.reference_scores, metrics), **_cost(None, len(self.row_ids))}]
        for arm in self.arms:
            who = {"candidate": arm.candidate, "variant": arm.variant.value, "state": arm.state, "reason": arm.reason}
            scores = arm.report.scores if arm.report else {}
            rows.append({**who, **_flat_scores(scores, metrics), **_cost(arm.report, 0), "derived_from": arm.derived_from})
        rows[0] |= {
            "derived_from": None,
            "cost_per_1k_usd": self.reference_cost_per_1k_usd,
            "latency_p50_ms": self.reference_latency_ms.get("p50"),
            "latency_p95_ms": self.reference_latency_ms.get("p95"),
        }
        return rows

    def to_csv(self) -> str:
        """`table` as CSV with a header."""
        rows = self.table()
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def data_version(self) -> str:
        """Hash of what the comparison means (32 hex digits): rows, their sources and gold, scores and holes; no latency or
        cost."""
        meaning: list[Any] = [
            [
                self.dataset_meaning or self.dataset_version,
                sorted(zip(self.row_ids, self.clusters, strict=True)),
                _columns_to_json(self.reference),
            ],
            sorted(self.eval_sources.items()),
            sorted(self.gold.items()),
            _columns_to_json(self.teacher),
            sorted((suite, sorted(zip(self.row_ids, labels, strict=True))) for suite, labels in self.suites.items()),
            sorted(
                json.dumps([a.candidate, a.variant, a.state, a.row_ids, _columns_to_json(a.scores), a.errored.tolist()])
                for a in self.arms
            ),
        ]
        # Without them, exams of the form there always was keep the hash they had.
        if terms := meaning_of(self.exam):
            meaning.append(sorted(terms.items()))
        if self.condemned_gold.get("rows"):
            meaning.append(sorted(self.condemned_gold.items()))
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:32]


def compare(
    workload: str,
    workload_type: WorkloadType,
    rows: Sequence[EvalRow],
    results: Sequence[ArmResult],
    *,
    dataset_version: str,
    dataset_meaning: str | None = None,
    reference_note: str = TEACHER_NOTE,
    notes: Sequence[str] = (),
    eval_sources: Mapping[str, int] | None = None,
    reference_cost_per_1k_usd: float | None = None,
    reference_latency_ms: Mapping[str, float | int | None] | None = None,
    condemned: int = 0,
    teacher: ScoredPredictions | None = None,
    judged: Sequence[str] = (),
    exam: Mapping[str, Any] | None = None,
) -> Comparison:
    """Put the results of all arms of a workload beside each other.

    `rows` is the eval set the workload stands at. Arms keep the rows they were really asked: whether they are the same ones
    is judged where it matters, in `core.decisions`. `notes` are caveats a reader must see (public benchmark requests, ...).
    `judged` names the columns that a judge fills; the reference is not judged, and has there what it is by construction.
    `reference_latency_ms` is what was logged of the teacher, `condemned` how many rows' reference answers somebody disliked.
    `teacher` is the teacher asked once more; one that was asked other rows is left out. `exam` says how the rows were
    drawn. ValueError where a result contradicts itself.

    Where a person corrected the teacher, its logged answer is scored like any other. Rows that were added to rare classes
    are left out: the reports of the arms have them.
    """
    added = frozenset(row.row_id for row in rows if not row.is_sampled)
    rows = [row for row in rows if row.is_sampled]
    logged = [Prediction(row.row_id, row.logged or row.reference) for row in rows]
    reference = {**score_rows(workload_type, rows, logged), **reference_scores(judged, rows, workload_type)}
    clusters = tuple(row.cluster for row in rows)
    row_ids = tuple(row.row_id for row in rows)
    again = _in_order(teacher.without(added), row_ids) if teacher is not None else None
    asked_again = again[1] if again is not None and again[0] == row_ids else {}
    corrected = sum(row.logged is not None for row in rows)
    if corrected:
        reference_note += f", but for {corrected} that people corrected, where they are scored like any other answer"
    return Comparison(
        workload=workload,
        workload_type=workload_type,
        dataset_version=dataset_version,
        dataset_meaning=dataset_meaning,
        row_ids=row_ids,
        clusters=clusters,
        reference=reference,
        reference_scores=summarize(reference, np.array(clusters, dtype=object)),
        arms=tuple(_arm(result, row_ids, added) for result in results),
        reference_note=reference_note,
        notes=tuple(notes),
        eval_sources=dict(eval_sources or {}),
        reference_cost_per_1k_usd=reference_cost_per_1k_usd,
        reference_latency_ms=dict(reference_latency_ms or {}),
        condemned_gold={"rows": condemned, "of": len(rows)} if condemned else {},
        suites={suite: labels for suite in SUITES if any(labels := tuple(getattr(row, f"suite_{suite}") for row in rows))},
        gold=dict(sorted(Counter(str(row.gold) for row in rows).items())),
        teacher=asked_again,
        ceiling=summarize(asked_again, np.array(clusters, dtype=object)),
        exam=dict(exam or {}),
    )


def _arm(result: ArmResult, row_ids: Sequence[str], added: frozenset[str]) -> Arm:
    evaluation = result.evaluation and result.evaluation.without(added)
    if (result.state == "ok") is not (evaluation is not None and result.report is not None):
        raise ValueError(
            f"{result.candidate} ({result.variant}): state '{result.state}' "
            f"{'without' if evaluation is None or result.report is None else 'with'} report and predictions."
        )
    found, scores, errored = _in_order(evaluation, row_ids) if evaluation else ((), {}, np.zeros(0, dtype=bool))
    return Arm(
        candidate=result.candidate,
        variant=result.variant,
        state=result.state,
        reason=result.reason,
        derived_from=result.derived_from,
        version=result.version,
        adapter_version=result.adapter_version,
        report=result.report,
        row_ids=found,
        scores=scores,
        errored=errored,
        answered_by=result.answered_by,
    )


def _in_order(evaluation: ScoredPredictions, row_ids: Sequence[str]) -> tuple[tuple[str, ...], Columns, NDArray[np.bool_]]:
    """The evaluation in the order of the eval set, or, where it is one of other rows, in its own."""
    errored = np.array([prediction.error is not None for prediction in evaluation.predictions], dtype=bool)
    place = {row_id: index for index, row_id in enumerate(evaluation.row_ids)}
    if place.keys() != set(row_ids) or len(place) != len(evaluation.row_ids):
        return evaluation.row_ids, evaluation.scores, errored
    order = np.array([place[row_id] for row_id in row_ids], dtype=np.int64)
    return tuple(row_ids), {metric: column[order] for metric, column in evaluation.scores.items()}, errored[order]


def _flat_scores(scores: Mapping[str, Score], metrics: Sequence[str]) -> Json:
    flat: Json = {}
    for metric in metrics:
        score = scores.get(metric)
        flat[metric] = score.value if score else None
        flat[f"{metric}_low"] = score.low if score else None
        flat[f"{metric}_high"] = score.high if score else None
        flat[f"{metric}_n"] = score.n if score else 0
    return flat


def _cost(report: EvalReport | None, n: int) -> Json:
    return {
        "n": report.n if report else n,
        "errors": report.errors if report else None,
        "latency_p50_ms": report.latency_ms["p50"] if report else None,
        "latency_p95_ms": report.latency_ms["p95"] if report else None,
        "cost_per_1k_usd": report.cost_per_1k_usd if report else None,
    }


def _columns_to_json(columns: Columns) -> dict[str, list[float | None]]:
    return {metric: [None if np.isnan(x) else float(x) for x in column] for metric, column in columns.items()}


def _columns_from_json(value: Mapping[str, Sequence[float | None]]) -> Columns:
    return {metric: np.array(column, dtype=np.float64) for metric, column in value.items()}
