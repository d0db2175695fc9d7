"""The page of an evaluation in Dagster's UI: scores, suites, examples and their history.

What belongs here: what a person sees of a published evaluation. What does not: making one (`assets.evaluation`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets import columns
from flywheel_assets.assets.metadata import IN_SHORT, bullet_table, score_history, score_table
from flywheel_assets.assets.previews import example_table
from flywheel_assets.core import graph
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import EvalReport
from flywheel_assets.core.rows import EvalRow, Prediction
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.flywheel import Flywheel

REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.parquet"
EXAMPLES_FILE = "examples.json"
_EXAMPLES = 8


def examples_json(rows: Sequence[EvalRow], predictions: Sequence[Prediction]) -> str:
    """A few questions with the expected and the given answer, as the text of `EXAMPLES_FILE`."""
    shown = [
        {
            "question": str(row.request["messages"][-1].get("content"))[:300],
            "expected": row.reference.to_json(),
            "answered": prediction.answer.to_json() if prediction.answer else None,
            "error": prediction.error,
        }
        for row, prediction in list(zip(rows, predictions, strict=True))[:_EXAMPLES]
    ]
    # Not orjson: a model can write half a surrogate pair, which is no UTF-8.
    return json.dumps(shown, indent=1)


def _suite_table(report: EvalReport) -> dg.MarkdownMetadataValue:
    """The workload's main metric by suite and label."""
    metric = MAIN_METRIC[report.workload_type]
    rows = []
    for suite, labels in report.suites.items():
        for label, found in labels.items():
            score = found.scores.get(metric)
            shown = [score.value, f"[{score.low:.3f}, {score.high:.3f}]"] if score else ["", ""]
            rows.append([suite, label, *shown, found.n])
    return bullet_table(["suite", "label", "mean", "95% interval", "rows"], rows)


def _in_short(report: EvalReport) -> str:
    """The main metric with its interval, and how much of the exam was answered."""
    metric = MAIN_METRIC[report.workload_type]
    score = report.scores.get(metric)
    shown = f"{metric} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else f"{metric} applies to no row"
    return f"{shown}; {report.n} questions, {report.errors} without an answer"


def describe_evaluation(flywheel: Flywheel, artifact: Artifact) -> Mapping[str, Any]:
    """The metadata of a materialized evaluation."""
    if artifact.state == "skipped":
        return {}
    summary = artifact.summary
    report = EvalReport.from_json(orjson.loads((artifact.path / REPORT_FILE).read_bytes()))
    cost = summary.get("cost_per_1k_usd")
    plotted = {metric: score["value"] for metric, score in summary["scores"].items()}
    rows_of = graph.TRAIN if artifact.asset == graph.VALIDATION_EVAL else graph.BASE
    return {
        IN_SHORT: _in_short(report),
        "scores": score_table(summary["scores"]),
        **score_history(flywheel.artifacts.history(artifact.asset, artifact.partition)),
        "examples": example_table(json.loads((artifact.path / EXAMPLES_FILE).read_text(encoding="utf-8"))),
        columns.ROWS: summary["n"],
        "errors": summary["errors"],
        "reused from the cache": summary["reused_from_cache"],
        "cost per 1,000 requests (USD)": "no price (`prices` in flywheel.yaml)" if cost is None else cost,
        "aggregates": score_table(summary["aggregates"]),
        f"{MAIN_METRIC[report.workload_type]} by suite": _suite_table(report),
        "metrics": bullet_table(["metric", "definition"], list(summary["definitions"].items())),
        "latency p50 ms": summary["latency_ms"]["p50"] or 0.0,
        "engine": summary["served"]["engine"],
        # Absent from evaluations made before there were judges.
        "judge": (summary.get("judge") or {}).get("judge", "none"),
        **columns.predictions_table(artifact.path / PREDICTIONS_FILE, summary["definitions"], rows_of=rows_of),
        # One number a metric, so that Dagster plots them over materializations.
        **plotted,
    }
