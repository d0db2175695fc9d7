"""Predictions: what one variant answered, row by row, as a Parquet file and as the report made from it.

What belongs here: the columns of `predictions.parquet`, the report's numbers, and the hash of what both mean. What does not:
scoring (`core.metrics`), intervals (`core.statistics`), asking a model (`resources`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flywheel_assets.core.aggregates import aggregates_of
from flywheel_assets.core.metrics import MAIN_METRIC, metric_names, score_rows
from flywheel_assets.core.rows import RARE_CLASS_FLOOR, SAMPLE, Answer, EvalRow, Json, Prediction, WorkloadType
from flywheel_assets.core.statistics import mean_interval

Scores = Mapping[str, NDArray[np.float64]]

_FIXED_COLUMNS = (
    ("row_id", pa.string(), False),
    ("trace_id", pa.string(), False),
    ("suite_turns", pa.string(), True),
    ("suite_complexity", pa.string(), True),
    ("suite_domain", pa.string(), True),
    ("reference", pa.string(), False),
    ("prediction", pa.string(), True),
    ("latency_ms", pa.float64(), True),
    ("prompt_tokens", pa.int64(), True),
    ("completion_tokens", pa.int64(), True),
    ("error", pa.string(), True),
    ("suite_turn_kind", pa.string(), True),
    ("gold", pa.string(), False),
    ("cached_tokens", pa.int64(), True),
)
# Absent from files that earlier versions wrote; null there.
_LATER_COLUMNS = frozenset({"cached_tokens"})
_OF_A_PREDICTION = ("row_id", "prediction", "latency_ms", "prompt_tokens", "completion_tokens", "error", "cached_tokens")
SUITES = ("turns", "turn_kind", "complexity", "domain")
# Beside them, which rows are of the sample: only where further ones were added to rare classes.
REPORTED_SUITES = (*SUITES, "draw")
# A mean of fewer rows says nothing about its domain.
MIN_DOMAIN_ROWS = 5
_TYPE_KEY = b"flywheel.workload_type"


class PredictionsError(ValueError):
    """A predictions file is not what was asked for; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of the non-null rows of a metric (0..1), its 95% interval, and `n`, their count."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """The scores of the rows that carry one suite label."""

    n: int
    scores: dict[str, Score]


@dataclass(frozen=True, slots=True)
class EvalReport:
    """One variant of a candidate on one eval set.

    `n` counts rows, `errors` the errored ones among them. `scores` leaves out metrics that apply to no row. `latency_ms` is
    of answered rows, milliseconds, None where nothing was measured; `tokens` are totals (`prompt`, `completion`, and
    `cached`, a part of `prompt`). `suites` maps
    `turns | turn_kind | complexity | domain | draw` to label to scores. `aggregates` holds what is no mean of rows.
    """

    workload_type: WorkloadType
    n: int
    errors: int
    scores: dict[str, Score]
    latency_ms: dict[str, float | None]
    tokens: dict[str, int | None]
    suites: dict[str, dict[str, SuiteReport]]
    aggregates: Json = field(default_factory=dict)
    cost_per_1k_usd: float | None = None
    state: str = "ok"
    reason: str | None = None

    @property
    def error_share(self) -> float:
        """Errored rows over all rows, 0..1."""
        return self.errors / self.n if self.n else 0.0

    def to_json(self) -> Json:
        """A JSON-ready form; `from_json` is its inverse."""
        return {**asdict(self), "workload_type": self.workload_type.value}

    def to_status(self) -> Json:
        """The form `flywheel status --json` shows."""
        shown = ("state", "reason", "n", "scores", "aggregates", "latency_ms", "cost_per_1k_usd")
        return {key: value for key, value in self.to_json().items() if key in shown}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EvalReport:
        """The report `to_json` gave."""
        suites = {
            suite: {label: SuiteReport(found["n"], _scores_from(found["scores"])) for label, found in labels.items()}
            for suite, labels in value["suites"].items()
        }
        fixed = {
            "workload_type": WorkloadType(value["workload_type"]),
            "scores": _scores_from(value["scores"]),
            "suites": suites,
        }
        return cls(**{**value, **fixed})


def _scores_from(value: Mapping[str, Any]) -> dict[str, Score]:
    return {metric: Score(**score) for metric, score in value.items()}


@dataclass(frozen=True, slots=True)
class ScoredPredictions:
    """A predictions file, read: entry i of everything belongs to row `row_ids[i]`; `scores` holds NaN for null."""

    workload_type: WorkloadType
    row_ids: tuple[str, ...]
    references: tuple[Answer, ...]
    predictions: tuple[Prediction, ...]
    scores: dict[str, NDArray[np.float64]]

    def without(self, row_ids: Collection[str]) -> ScoredPredictions:
        """The same of all other rows."""
        if not row_ids:
            return self
        kept = [at for at, row_id in enumerate(self.row_ids) if row_id not in row_ids]
        return ScoredPredictions(
            workload_type=self.workload_type,
            row_ids=tuple(self.row_ids[at] for at in kept),
            references=tuple(self.references[at] for at in kept),
            predictions=tuple(self.predictions[at] for at in kept),
            scores={metric: column[kept] for metric, column in self.scores.items()},
        )


def build_report(
    workload_type: WorkloadType,
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    scores: Scores | None = None,
    *,
    cost_per_1k_usd: float | None = None,
) -> EvalReport:
    """The report of one evaluation; `scores` are those of `score_rows`, computed where they are not given.

    Intervals respect the rows' clusters. Rows that were added to rare classes are in the suite `draw` and nowhere else.
    Raises MetricError when rows and predictions do not belong together.
    """
    found = score_rows(workload_type, rows, predictions) if scores is None else scores
    sampled = np.array([row.is_sampled for row in rows], dtype=bool)
    if not sampled.all():
        return _report_of_the_sample(workload_type, rows, predictions, found, sampled, cost_per_1k_usd)
    clusters = np.array([row.cluster for row in rows], dtype=object)
    latencies = [p.latency_ms for p in predictions if p.error is None and p.latency_ms is not None]
    suites: dict[str, dict[str, SuiteReport]] = {}
    for suite in SUITES:
        labels = np.array([getattr(row, f"suite_{suite}") for row in rows], dtype=object)
        suites[suite] = {
            label: SuiteReport(int(np.sum(labels == label)), summarize(found, clusters, labels == label))
            for label in sorted({label for label in labels if label is not None})
        }
    return EvalReport(
        workload_type=workload_type,
        n=len(rows),
        errors=sum(p.error is not None for p in predictions),
        scores=summarize(found, clusters),
        latency_ms={
            "p50": float(np.percentile(latencies, 50)) if latencies else None,
            "p95": float(np.percentile(latencies, 95)) if latencies else None,
        },
        tokens={
            "prompt": _total(p.prompt_tokens for p in predictions),
            "completion": _total(p.completion_tokens for p in predictions),
            "cached": _total(p.cached_tokens for p in predictions),
        },
        suites={suite: labels for suite, labels in suites.items() if labels},
        aggregates={**aggregates_of(workload_type, rows, predictions), **_spread(workload_type, suites["domain"])},
        cost_per_1k_usd=cost_per_1k_usd,
    )


def _report_of_the_sample(
    workload_type: WorkloadType,
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    scores: Scores,
    sampled: NDArray[np.bool_],
    cost_per_1k_usd: float | None,
) -> EvalReport:
    """The report of the sampled rows, with one suite for those and the added ones."""
    sample = {row.row_id for row in rows if row.is_sampled}
    report = build_report(
        workload_type,
        [row for row in rows if row.is_sampled],
        [prediction for prediction in predictions if prediction.row_id in sample],
        {metric: column[sampled] for metric, column in scores.items()},
        cost_per_1k_usd=cost_per_1k_usd,
    )
    clusters = np.array([row.cluster for row in rows], dtype=object)
    parts = ((SAMPLE, sampled), (RARE_CLASS_FLOOR, ~sampled))
    draw = {label: SuiteReport(int(part.sum()), summarize(scores, clusters, part)) for label, part in parts}
    return replace(report, suites={**report.suites, "draw": draw})


def _spread(workload_type: WorkloadType, domains: Mapping[str, SuiteReport]) -> Json:
    """How far a workload's main metric lies apart over domains with enough rows: largest less smallest mean, 0..1."""
    metric = MAIN_METRIC[workload_type]
    means = {
        label: report.scores[metric].value
        for label, report in domains.items()
        if metric in report.scores and report.scores[metric].n >= MIN_DOMAIN_ROWS
    }
    if len(means) < 2:
        return {}
    lowest, highest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    spread = {"value": means[highest] - means[lowest], "low": None, "high": None, "n": len(means)}
    deviation = float(np.std(list(means.values())))
    return {"domain_spread": {**spread, "metric": metric, "deviation": deviation, "lowest": lowest, "highest": highest}}


def summarize(scores: Scores, clusters: NDArray[Any], chosen: NDArray[np.bool_] | None = None) -> dict[str, Score]:
    """The score of each metric over the chosen rows (default: all); metrics that apply to none of them are left out."""
    summary = {}
    for metric, column in scores.items():
        counted = ~np.isnan(column) if chosen is None else chosen & ~np.isnan(column)
        if counted.any():
            interval = mean_interval(column[counted], clusters[counted])
            summary[metric] = Score(interval.value, interval.low, interval.high, int(counted.sum()))
    return summary


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def predictions_schema(workload_type: WorkloadType, metrics: Sequence[str] | None = None) -> pa.Schema:
    """The columns of `predictions.parquet`: the fixed ones, then one a metric (default: those of the workload type)."""
    names = metric_names(workload_type) if metrics is None else metrics
    fields = [pa.field(name, kind, nullable) for name, kind, nullable in _FIXED_COLUMNS]
    fields += [pa.field(name, pa.float64()) for name in names]
    return pa.schema(fields, metadata={_TYPE_KEY: workload_type.value.encode()})


def write_predictions(
    target: Path | BinaryIO,
    workload_type: WorkloadType,
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    scores: Scores | None = None,
) -> None:
    """Write `predictions.parquet`, one row an eval row, in the order of `rows`.

    `scores` are those of `score_rows`, computed where they are not given. Raises MetricError when rows and predictions do
    not belong together.
    """
    found = score_rows(workload_type, rows, predictions) if scores is None else scores
    by_row = {prediction.row_id: prediction for prediction in predictions}
    ordered = [by_row[row.row_id] for row in rows]
    columns: dict[str, Any] = {
        "row_id": [row.row_id for row in rows],
        "trace_id": [row.trace_id for row in rows],
        **{f"suite_{suite}": [getattr(row, f"suite_{suite}") for row in rows] for suite in SUITES},
        "gold": [str(row.gold) for row in rows],
        "reference": [_encode(row.reference) for row in rows],
        "prediction": [None if p.answer is None else _encode(p.answer) for p in ordered],
        "latency_ms": [p.latency_ms for p in ordered],
        "prompt_tokens": [p.prompt_tokens for p in ordered],
        "completion_tokens": [p.completion_tokens for p in ordered],
        "cached_tokens": [p.cached_tokens for p in ordered],
        "error": [None if p.error is None else p.error.encode("utf-8", "replace").decode() for p in ordered],
        **{metric: pa.array(column, mask=np.isnan(column)) for metric, column in found.items()},
    }
    table = pa.table(columns, schema=predictions_schema(workload_type, tuple(found)))
    pq.write_table(table, target, compression="zstd")


def read_predictions(source: Path | BinaryIO) -> ScoredPredictions:
    """Read what `write_predictions` wrote. Raises PredictionsError when the file is something else or lacks columns."""
    try:
        table = pq.read_table(source)
    except pa.ArrowInvalid as error:
        raise PredictionsError(f"{source} is not a Parquet file ({error}). Materialize the evaluation again.") from error
    lacking = [name for name, _, _ in _FIXED_COLUMNS if name not in table.column_names and name not in _LATER_COLUMNS]
    metadata = table.schema.metadata or {}
    if lacking or _TYPE_KEY not in metadata:
        what = f"the columns {', '.join(lacking)}" if lacking else "the workload type in its metadata"
        raise PredictionsError(f"{source} holds no predictions: it lacks {what}. Materialize the evaluation again.")
    columns: dict[str, list[Any]] = {
        name: table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name, _, _ in _FIXED_COLUMNS
    }
    fixed = set(columns)
    return ScoredPredictions(
        workload_type=WorkloadType(metadata[_TYPE_KEY].decode()),
        row_ids=tuple(columns["row_id"]),
        references=tuple(_decode(text) for text in columns["reference"]),
        predictions=tuple(
            Prediction(
                row_id, None if text is None else _decode(text), latency, prompt, completion, error, cached_tokens=cached
            )
            for row_id, text, latency, prompt, completion, error, cached in zip(
                *(columns[name] for name in _OF_A_PREDICTION), strict=True
            )
        ),
        scores={
            name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
            for name in table.column_names
            if name not in fixed
        },
    )


def data_version(
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    installed_metrics: Mapping[str, str] | None = None,
    judged: Json | None = None,
) -> str:
    """Hash of what an evaluation means (32 hex digits): rows, accepted answers, answers given, which rows errored, the
    versions of metrics that other packages bring (the built-in ones have a part in the node's code version), and `judged`,
    what a judge made of the answers, in the order of the rows (`core.judge.Judged.meaning`).

    Neither order, nor latency, token counts, the wording of an error or the cache have a part in it.
    """
    by_row = {prediction.row_id: prediction for prediction in predictions}
    meaning: list[Any] = sorted(
        (
            row.row_id,
            row.cluster,
            _encode(row.reference),
            None if row.accepted is None else json.dumps(row.accepted, sort_keys=True),
            None if (answer := by_row[row.row_id].answer) is None else _encode(answer),
        )
        for row in rows
    )
    if installed_metrics:
        meaning.append(sorted(installed_metrics.items()))
    if judged:
        by_id = {
            name: sorted(zip((row.row_id for row in rows), column, strict=True))
            for name, column in judged["columns"].items()
        }
        meaning.append(json.dumps({**judged, "columns": by_id}, sort_keys=True))
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:32]


def _encode(answer: Answer) -> str:
    # ASCII with escapes: a model can write half a surrogate pair, which neither Parquet nor UTF-8 can hold.
    return json.dumps(answer.to_json(), separators=(",", ":"))


def _decode(text: str) -> Answer:
    return Answer.from_json(json.loads(text))
