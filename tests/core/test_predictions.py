"""The predictions file and the report: the published columns, faithful round trips, hashes that mean something."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.core.metrics import MetricError, metric_names
from flywheel_assets.core.predictions import (
    EvalReport,
    PredictionsError,
    build_report,
    data_version,
    read_predictions,
    write_predictions,
)
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType

TOOLS = WorkloadType.TOOL_CALLING
CALL = Answer(None, (ToolCall("f", '{"a": 1}'),))
SILENCE = Answer("no tool fits")


def eval_rows() -> list[EvalRow]:
    request = {"messages": [{"role": "user", "content": "?"}]}
    return [
        EvalRow("r1", "t1", "c1", request, CALL, "single_turn", suite_complexity="single_call"),
        EvalRow("r2", "t2", "c1", request, CALL, "multi_turn", suite_complexity="single_call", suite_domain="math"),
        EvalRow("r3", "t3", "c2", request, SILENCE, "single_turn"),
    ]


def answers() -> list[Prediction]:
    return [
        Prediction("r1", CALL, latency_ms=100.0, prompt_tokens=10, completion_tokens=5, cached_tokens=8),
        Prediction("r2", None, latency_ms=9000.0, error="timed out after 120 s"),
        Prediction("r3", SILENCE, latency_ms=300.0, prompt_tokens=20, completion_tokens=7, cached=True),
    ]


def test_the_file_has_the_published_columns_in_their_order(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", TOOLS, eval_rows(), answers())
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == [
        *("row_id", "trace_id", "suite_turns", "suite_complexity", "suite_domain", "reference", "prediction"),
        *("latency_ms", "prompt_tokens", "completion_tokens", "error", "suite_turn_kind", "gold", "cached_tokens"),
        *metric_names(TOOLS),
    ]
    rows = table.to_pylist()
    assert rows[2]["function_name"] is None and rows[2]["no_call"] == 1.0
    assert rows[1]["prediction"] is None and rows[1]["function_name"] == 0.0 and rows[1]["error"].startswith("timed out")
    assert json.loads(rows[0]["prediction"]) == {"content": None, "tool_calls": [{"name": "f", "arguments": '{"a": 1}'}]}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, TOOLS, eval_rows(), answers()[::-1])
    read = read_predictions(path)
    assert read.workload_type is TOOLS and read.row_ids == ("r1", "r2", "r3")
    assert read.references == (CALL, CALL, SILENCE)
    # Whether an answer came from the cache is no part of the file.
    assert list(read.predictions) == [replace(prediction, cached=False) for prediction in answers()]
    assert read.scores["function_name"].tolist()[:2] == [1.0, 0.0] and np.isnan(read.scores["function_name"][2])


def test_a_file_from_before_cached_tokens_were_read_has_none(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, TOOLS, eval_rows(), answers())
    pq.write_table(pq.read_table(path).drop_columns(["cached_tokens"]), path)
    read = read_predictions(path)
    assert list(read.predictions) == [replace(one, cached=False, cached_tokens=None) for one in answers()]
    assert "cached_tokens" not in read.scores


def test_a_metric_that_applies_to_no_row_stays_a_column_of_numbers() -> None:
    file = io.BytesIO()
    write_predictions(file, TOOLS, eval_rows()[2:], answers()[2:])
    read = read_predictions(io.BytesIO(file.getvalue()))
    assert read.scores["bfcl_ast"].dtype == np.float64 and np.isnan(read.scores["bfcl_ast"]).all()


def test_half_a_surrogate_pair_in_an_answer_survives_the_file() -> None:
    row, odd = eval_rows()[0], Answer("\ud83d", (ToolCall("f", '{"a": "\udc00"}'),))
    file = io.BytesIO()
    write_predictions(file, TOOLS, [row], [Prediction("r1", odd)])
    assert read_predictions(io.BytesIO(file.getvalue())).predictions[0].answer == odd
    assert data_version([row], [Prediction("r1", odd)])


def test_a_file_that_holds_no_predictions_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"row_id": ["a"]}), path)
    with pytest.raises(PredictionsError, match=r"other\.parquet holds no predictions: it lacks the columns trace_id"):
        read_predictions(path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(PredictionsError, match="is not a Parquet file"):
        read_predictions(path)


def test_the_report_counts_each_metric_over_the_rows_it_applies_to() -> None:
    report = build_report(TOOLS, eval_rows(), answers())
    assert (report.n, report.errors, report.error_share) == (3, 1, pytest.approx(1 / 3))
    assert (report.scores["function_name"].value, report.scores["function_name"].n) == (0.5, 2)
    assert (report.scores["no_call"].value, report.scores["no_call"].n) == (1.0, 1)
    assert report.scores["function_name"].low < 0.5 < report.scores["function_name"].high
    # An errored call has no latency worth reporting.
    assert report.latency_ms == {"p50": 200.0, "p95": pytest.approx(290.0)}
    assert report.tokens == {"prompt": 30, "completion": 12, "cached": 8}


def test_the_report_has_the_scores_of_every_suite_label() -> None:
    suites = build_report(TOOLS, eval_rows(), answers()).suites
    assert sorted(suites) == ["complexity", "domain", "turns"]
    assert suites["turns"]["single_turn"].n == 2 and suites["turns"]["single_turn"].scores["function_name"].n == 1
    assert suites["domain"]["math"].scores["function_name"].value == 0.0


def test_a_report_survives_json_and_shows_its_status_form() -> None:
    report = build_report(TOOLS, eval_rows(), answers())
    assert EvalReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert EvalReport.from_json(orjson.loads(orjson.dumps(report.to_json()))) == report
    assert set(report.to_status()) == {"state", "reason", "n", "scores", "aggregates", "latency_ms", "cost_per_1k_usd"}
    assert set(report.to_status()["scores"]["no_call"]) == {"value", "low", "high", "n"}


def test_a_report_of_nothing_has_no_numbers_instead_of_false_ones() -> None:
    report = build_report(TOOLS, [], [])
    assert report.scores == {} and report.latency_ms == {"p50": None, "p95": None} and report.error_share == 0.0


def test_predictions_of_other_rows_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(MetricError):
        write_predictions(tmp_path / "p.parquet", TOOLS, eval_rows(), answers()[:2])
    assert not (tmp_path / "p.parquet").exists()


def test_the_data_version_hashes_answers_and_errors_and_nothing_that_varies_by_the_day() -> None:
    rows, said = eval_rows(), answers()
    version = data_version(rows, said)
    later = [replace(p, latency_ms=1.0, cached=True, prompt_tokens=None, error=p.error and "connection reset") for p in said]
    assert data_version(rows[::-1], later[::-1]) == version
    assert data_version(rows, [replace(said[0], answer=SILENCE), *said[1:]]) != version
    assert data_version(rows, [*said[:2], Prediction("r3", None, error="x")]) != version
    assert data_version([replace(rows[0], reference=SILENCE), *rows[1:]], said) != version
    assert data_version([replace(rows[0], accepted=({"f": {"a": [1, 2]}},)), *rows[1:]], said) != version
