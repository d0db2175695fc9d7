"""Odd traffic on its whole way from a log line to a report: nothing crashes, and every number is one."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from flywheel_assets.core.comparison import ArmResult, compare
from flywheel_assets.core.costs import TokenPrice, cost_per_1k, teacher_cost_per_1k, teacher_full_price_notes
from flywheel_assets.core.datasets import SplitPolicy, profile_workload, read_eval_rows
from flywheel_assets.core.decisions import InvalidEvidence, InvalidGate, decide
from flywheel_assets.core.predictions import build_report, read_predictions, write_predictions
from flywheel_assets.core.report import report_of, to_html, to_markdown
from flywheel_assets.core.rows import Prediction, Variant, WorkloadType
from tests.core.datasets.odd_traffic import odd_lines
from tests.core.datasets.workbench import Workbench

PRICES = {"big-2026": TokenPrice(2.0, 8.0, 0.5), "big": TokenPrice(2.0, 8.0)}


def finite(value: Any) -> str:
    """A JSON text of a value; an error where it holds infinity, NaN or what is no JSON."""
    return json.dumps(value, allow_nan=False)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd_lines())
def test_whatever_is_accepted_every_number_made_of_it_is_finite(lines: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        summary = bench.records(lines)
        finite(summary.to_json())
        profile = profile_workload(bench.path("records"), workload_type=None)
        finite(profile.to_json())
        finite([teacher_cost_per_1k(profile.to_json(), PRICES), teacher_full_price_notes(profile.to_json(), PRICES)])
        if summary.records < 4:
            return
        built = bench.datasets(SplitPolicy(eval_size=50, min_total_records=2, eval_share=0.5))
        finite(built.to_json())
        if built.eval_rows:
            check_reports(bench, WorkloadType(profile.type), profile.latency_ms, built.eval_condemned)


def check_reports(bench: Workbench, kind: WorkloadType, latency_ms: dict[str, Any], condemned: int) -> None:
    rows = read_eval_rows(bench.path("base"))
    predictions = [Prediction(row.row_id, row.reference, 10.0, 5, 5, cached_tokens=3) for row in rows]
    path = bench.path("predictions")
    write_predictions(path, kind, rows, predictions)
    report = build_report(kind, rows, predictions, cost_per_1k_usd=cost_per_1k(predictions, PRICES["big"]))
    finite(report.to_json())
    arm = ArmResult("small", Variant.BASE, "ok", report=report, evaluation=read_predictions(path), version="v")
    compared = compare("w", kind, rows, [arm], dataset_version="d", reference_latency_ms=latency_ms, condemned=condemned)
    finite(compared.to_json())
    assert "inf" not in compared.to_csv() and to_markdown(compared) and to_html(report_of(compared))
    try:
        decision = decide(compared, max_error_share=1.0)
    except (InvalidEvidence, InvalidGate):
        # A few odd rows need not hold anything that the gates of the type are about.
        return
    finite(decision.to_json())
    assert to_html(report_of(replace(compared), decision))
