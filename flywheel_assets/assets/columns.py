"""Columns: what the tables of the graph hold, and which column comes from which.

What belongs here: column schemas and column lineage as Dagster shows them. What does not: the tables themselves
(`core.datasets`, `core.predictions`, `core.comparison`), whose types are read from them, so that nothing is said twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.core.datasets.index import SCHEMA as INDEX_SCHEMA
from flywheel_assets.core.rows import Variant

SCHEMA, LINEAGE, URI, ROWS = "dagster/column_schema", "dagster/column_lineage", "dagster/uri", "dagster/row_count"

_BODY = "body"
_RECORDS = {
    "trace_id": "The record's id: its own, or the hash of the record.",
    "trace": "Hash of `trace_id`.",
    "row_id": "Names the row in every dataset and prediction: 16 bytes, the hash of the whole conversation.",
    "prompt": "Hash of the messages before the answer: equal prompts are one conversation.",
    "session": "Hash of `session_id`; 0 without one.",
    "content": "Hash of the request and its answer: equal ones are duplicates.",
    "timestamp": "When it was logged, in epoch seconds.",
    "kind": "`tool:NAME` of the first call, `no_call` (tools were offered, none called) or `text`.",
    "structured": "Whether a JSON answer was asked for.",
    "source": "Where it comes from: `traffic`, or the name of an imported data set.",
    "unsupported": "What it holds that a text model cannot take, such as images; empty where nothing.",
    "teacher": "The model that answered.",
    "tools": "Names of the tools that were offered.",
    "definitions": "Hashes of their definitions.",
    "called": "Names of the tools that were called.",
    "cost_usd": "What the call cost, where that was logged.",
    "latency_ms": "Milliseconds the call took, where that was logged.",
    "prompt_tokens": "Tokens of the request, where they were logged.",
    "completion_tokens": "Tokens of the answer, where they were logged.",
    "cached_tokens": "Tokens of the request from the prompt cache, where that was logged.",
    "user_turns": "How often the user speaks.",
    "request_size": "Bytes of messages and tools.",
    "answer_size": "Bytes of the answer.",
    "label": "Hash of an answer that could be a label: one short line of text; else 0.",
    "accepted": "Whether the record brings answers of its own that count as right.",
    "cut_off": "Whether the answer ended at the token limit or in a content filter.",
    "refusal": "Whether the answer declines.",
    "feedback": "`feedback.score`; NaN without one.",
    "prompt_at": "Where the prompt begins in the body, in bytes.",
    "prompt_bytes": "Its length.",
    "tools_at": "Where the tools begin in the body, in bytes.",
    "tools_bytes": "Their length.",
    "answer_at": "Where the answer begins in the body, in bytes.",
    "answer_bytes": "Its length.",
    "near": "Keys that near-duplicates share; empty where they are not looked for.",
    "block_offset": "Where the block of the body begins in its segment file.",
    "block_bytes": "The length of that block.",
    "position": "Which body of the block it is.",
}
_EVAL_ROWS = {
    "row_id": ("string", "Names the row in every evaluation."),
    "trace_id": ("string", "The record it was made from."),
    "cluster": ("string", "Its conversation: rows of one cluster are never on both sides of the split."),
    "request": ("object", "The OpenAI request, asked of every candidate as it is."),
    "response": ("object", "The answer that counts as right: the teacher's, or a person's correction."),
    "logged_answer": ("string", "The teacher's answer as JSON where a person corrected it; empty otherwise."),
    "accepted_answers": ("string", "Further answers that count as right, as JSON; only where records bring them."),
    "gold": ("string", "On whose word the answer is right: the teacher's, a rating, a correction, or accepted answers."),
    "draw_probability": (
        "number",
        "The chance with which this row of the eval side was drawn: above 0, 1 at most.",
    ),
    "suite_turns": ("string", "Suite: single_turn or multi_turn."),
    "suite_turn_kind": ("string", "Suite: what makes it several turns; empty where it is one."),
    "suite_complexity": ("string", "Suite: how hard the request is."),
    "suite_domain": ("string", "Suite: what it is about."),
    "suite_draw": ("string", "Suite: sample, or rare_class_floor; only where rows were added to rare classes."),
    "content_hash": ("string", "Tells whether the row is still what the record says."),
}
_TRAINING_ROWS = {
    "row_id": ("string", "Names the row; no row of the same conversation is examined on."),
    "prompt": ("array", "The messages before the answer."),
    "tools": ("string", "The tools that were offered, as JSON."),
    "completion": ("array", "The one assistant message that is learned."),
}
_PREDICTIONS = {
    "row_id": "The eval row that was asked.",
    "trace_id": "The record that row was made from.",
    "suite_turns": _EVAL_ROWS["suite_turns"][1],
    "suite_complexity": _EVAL_ROWS["suite_complexity"][1],
    "suite_domain": _EVAL_ROWS["suite_domain"][1],
    "suite_turn_kind": _EVAL_ROWS["suite_turn_kind"][1],
    "reference": "The answer that counts as right, as JSON.",
    "prediction": "What was answered, as JSON; null where the request failed.",
    "latency_ms": "Milliseconds until the answer was there; null where it came from the cache without one.",
    "prompt_tokens": "Tokens of the request.",
    "completion_tokens": "Tokens of the answer.",
    "cached_tokens": "Tokens of the request that the server took from its prompt cache; null where it does not say.",
    "error": "Why there is no answer; null where there is one.",
    "gold": _EVAL_ROWS["gold"][1],
}
_LEADERBOARD = {
    "candidate": "The candidate; (reference) is the teacher's logged answers.",
    "variant": "base, prefixed, customized, or teacher.",
    "state": "ok, or why there are no numbers: failed, skipped, missing.",
    "reason": "The reason, where the state is not ok.",
    "n": "Eval rows.",
    "errors": "Rows without an answer; they count as wrong.",
    "latency_p50_ms": "Median milliseconds of an answer.",
    "latency_p95_ms": "95 of 100 answers come faster.",
    "cost_per_1k_usd": "USD for 1,000 requests, by the price table of flywheel.yaml; null without a price.",
    "derived_from": "The model a candidate was cut from, where it is no published one.",
}
_ENDINGS = {
    "_low": "Lower end of its 95% interval.",
    "_high": "Upper end of its 95% interval.",
    "_n": "Rows to which the metric applies.",
}
_From = Mapping[str, Sequence[str]]
_RECORDS_FROM: _From = {name: (name,) for name in ("row_id", "trace_id")}
_EVAL_FROM: _From = {
    **_RECORDS_FROM,
    "cluster": ("session", "prompt", "near"),
    "gold": ("feedback", "accepted"),
    "suite_draw": ("kind", "label", "answer_size"),
    "draw_probability": ("kind", "label", "answer_size", "user_turns", "session", "prompt", "near"),
    **dict.fromkeys(("request", "response", "logged_answer", "accepted_answers", "content_hash"), (_BODY,)),
    **dict.fromkeys(("suite_turns", "suite_turn_kind", "suite_complexity", "suite_domain"), (_BODY,)),
}
_TRAINING_FROM: _From = {"row_id": ("row_id",), **dict.fromkeys(("prompt", "tools", "completion"), (_BODY,))}


def records_table() -> Mapping[str, Any]:
    """The schema of `records`: its index, and the bodies beside it."""
    body = dg.TableColumn(_BODY, "json", "The whole record, scrubbed, in segments/*.zst.")
    columns = [dg.TableColumn(field.name, str(field.type), _RECORDS[field.name]) for field in INDEX_SCHEMA]
    return {SCHEMA: dg.TableSchema([body, *columns])}


def eval_rows_table() -> Mapping[str, Any]:
    """The schema of `datasets/base`."""
    return {SCHEMA: _schema(_EVAL_ROWS)}


def training_rows_table() -> Mapping[str, Any]:
    """The schema of `datasets/train`."""
    return {SCHEMA: _schema(_TRAINING_ROWS)}


def eval_rows_lineage() -> Mapping[str, Any]:
    """Which columns of `records` the eval rows come from."""
    return {LINEAGE: _lineage(_EVAL_FROM, [graph.RECORDS])}


def training_rows_lineage() -> Mapping[str, Any]:
    """Which columns of `records` the training rows come from."""
    return {LINEAGE: _lineage(_TRAINING_FROM, [graph.RECORDS])}


def predictions_table(path: Path, definitions: Mapping[str, str], *, rows_of: str) -> Mapping[str, Any]:
    """The schema of a `predictions.parquet`, metrics and all, and its lineage from the asset that was asked.

    `definitions` says what each metric is; `rows_of` is the asset whose rows were asked. The address is left out: the page
    of a cell is narrow, Dagster breaks no address, and everything else on the page would be cut off with it.
    """
    found = pq.read_schema(path)
    described = {**definitions, **_PREDICTIONS}
    columns = [
        dg.TableColumn(
            field.name,
            str(field.type),
            described.get(field.name),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in found
    ]
    metadata: dict[str, Any] = {SCHEMA: dg.TableSchema(columns)}
    if rows_of == graph.BASE:
        kept: _From = {name: (name,) for name in _PREDICTIONS if name in _EVAL_ROWS}
        asked: _From = {"reference": ("response",), "prediction": ("request",)}
        scored: _From = {name: ("response", "request") for name in found.names if name not in _PREDICTIONS}
        metadata[LINEAGE] = _lineage({**kept, **asked, **scored}, [rows_of])
    return metadata


def leaderboard_table(path: Path, columns: Iterable[str], metrics: Sequence[str]) -> Mapping[str, Any]:
    """The schema of `leaderboard.csv` and its lineage: every metric comes from the same column of every evaluation."""
    names = list(columns)
    texts = {"candidate", "variant", "state", "reason", "derived_from"}
    found = [dg.TableColumn(name, "string" if name in texts else "float", _leaderboard_column(name)) for name in names]
    scored: _From = {name: (metric,) for metric in metrics for name in names if name.removeprefix(metric) in ("", *_ENDINGS)}
    evaluations = [graph.EVALS[variant] for variant in Variant]
    asked: _From = {
        "errors": ("error",),
        "latency_p50_ms": ("latency_ms",),
        "latency_p95_ms": ("latency_ms",),
        "n": ("row_id",),
    }
    return {
        SCHEMA: dg.TableSchema(found),
        LINEAGE: _lineage({**scored, **asked}, evaluations),
        URI: path.as_uri(),
        ROWS: sum(1 for _ in path.open(encoding="utf-8")) - 1,
    }


def _leaderboard_column(name: str) -> str:
    if name in _LEADERBOARD:
        return _LEADERBOARD[name]
    return next((told for ending, told in _ENDINGS.items() if name.endswith(ending)), "Mean of the rows, from 0 to 1.")


def _schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, kind, told) for name, (kind, told) in columns.items()])


def _lineage(comes_from: _From, assets: Sequence[str]) -> dg.TableColumnLineage:
    """Each column with the columns it comes from, in every one of `assets`."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key(asset), source) for asset in assets for source in sources]
            for column, sources in comes_from.items()
        }
    )
