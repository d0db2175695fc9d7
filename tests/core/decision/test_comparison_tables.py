"""The tables of the comparison beside its leaderboard: what stands in them, recounted from the rows."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import ArmResult, compare
from flywheel_assets.core.comparison_tables import tables_of
from flywheel_assets.core.decisions import decide
from flywheel_assets.core.gates import Gate
from flywheel_assets.core.predictions import build_report, read_predictions, write_predictions
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, Variant, WorkloadType
from tests.report_scene import Scene, shop


@cache
def scene() -> Scene:
    return shop(200)


def read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables_of(scene().comparison)[name])))


def test_every_arm_is_compared_with_the_teacher_row_by_row() -> None:
    compared = scene().comparison
    lines = read("against_teacher.csv")
    assert {line["candidate"] for line in lines} == {"smollm2-135m", "qwen2.5-0.5b", "qwen2.5-1.5b"}
    for line in lines:
        arm = next(arm for arm in compared.evaluated if (arm.candidate, arm.variant) == (line["candidate"], line["variant"]))
        applies = ~np.isnan(compared.reference[line["metric"]])
        ours, theirs = np.nan_to_num(arm.scores[line["metric"]][applies]), compared.reference[line["metric"]][applies]
        assert (int(line["wins"]), int(line["losses"])) == (int(np.sum(ours > theirs)), int(np.sum(ours < theirs)))
        assert int(line["wins"]) + int(line["losses"]) + int(line["ties"]) == int(line["rows"]) == int(applies.sum())
        assert float(line["difference"]) == pytest.approx(float(np.mean(ours - theirs)))
        assert float(line["low"]) <= float(line["difference"]) <= float(line["high"])


def test_the_bounds_against_the_teacher_are_those_the_decision_uses() -> None:
    decided = decide(scene().comparison, [Gate("function_name_and_args", 0.05)])
    lines = {
        (line["candidate"], line["variant"]): line
        for line in read("against_teacher.csv")
        if line["metric"] == "function_name_and_args"
    }
    for arm in decided.evidence["arms"]:
        (gate,), line = arm["gates"], lines[arm["candidate"], arm["variant"]]
        assert [float(line[key]) for key in ("low", "high", "discordance")] == pytest.approx(
            [gate["low"], gate["high"], gate["discordance"]]
        )
        assert line["method"] == gate["method"]


def test_single_and_multi_turn_rows_stand_apart_with_the_figures_of_the_report() -> None:
    lines = read("single_turn.csv")
    assert {line["turns"] for line in lines} == {"single_turn", "multi_turn"}
    arm = scene().comparison.evaluated[0]
    assert arm.report is not None
    score = arm.report.suites["turns"]["multi_turn"].scores["function_name"]
    line = next(line for line in lines if (line["turns"], line["metric"]) == ("multi_turn", "function_name"))
    assert (float(line["value"]), int(line["rows"])) == (score.value, score.n)


def test_only_structured_workloads_have_a_table_of_structured_quality() -> None:
    assert "structured_quality.csv" not in tables_of(scene().comparison)
    kind = WorkloadType.STRUCTURED
    rows = [
        EvalRow(f"r{i}", f"t{i}", f"c{i}", {"messages": []}, Answer('{"a": 1, "b": 2}'), "single_turn", suite_domain="=1+1")
        for i in range(8)
    ]
    answers = [Prediction(row.row_id, Answer('{"a": 1}' if i else "no JSON")) for i, row in enumerate(rows)]
    file = io.BytesIO()
    write_predictions(file, kind, rows, answers)
    evaluation = read_predictions(io.BytesIO(file.getvalue()))
    arm = ArmResult("small", Variant.BASE, "ok", report=build_report(kind, rows, answers), evaluation=evaluation)
    table = tables_of(compare("forms", kind, rows, [arm], dataset_version="d1"))["structured_quality.csv"]
    lines = list(csv.DictReader(io.StringIO(table)))
    over_all = {line["metric"]: float(line["value"]) for line in lines if line["suite"] == "all"}
    assert over_all["json_valid"] == 7 / 8 and over_all["field_recall"] == pytest.approx(7 / 16)
    assert {line["label"] for line in lines if line["suite"] == "domain"} == {"'=1+1"}, "a label is no formula"


def test_holes_and_arms_of_other_rows_have_no_line(evidence: Any) -> None:
    rows = evidence.rows(30)
    hole = ArmResult("remote", Variant.BASE, "failed", "no memory")
    other = replace(evidence.arm(evidence.rows(31)), candidate="other")
    table = tables_of(evidence.compare(rows, evidence.arm(rows), other, hole))["against_teacher.csv"]
    assert {line["candidate"] for line in csv.DictReader(io.StringIO(table))} == {"small"}
