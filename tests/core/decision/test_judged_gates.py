"""Gates on what a judge said: against a reference that is nobody's verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.comparison import Comparison, compare
from flywheel_assets.core.decisions import InvalidGate, Verdict, decide
from flywheel_assets.core.gates import Gate, default_gates, gates_of_type
from flywheel_assets.core.rows import WorkloadType

TOOLS = WorkloadType.TOOL_CALLING


def judged(evidence: Any, column: str, verdicts: list[float], **kinds: int) -> Comparison:
    """A comparison whose only arm has these verdicts, one a row."""
    rows = evidence.rows(len(verdicts) - kinds.get("silent", 0), **kinds)
    arm = evidence.arm(rows, lambda _: True)
    scores = {**arm.evaluation.scores, column: np.array(verdicts)}
    arm = replace(arm, evaluation=replace(arm.evaluation, scores=scores))
    return compare("router", TOOLS, rows, [arm], dataset_version="d1", judged=[column])


def test_judged_calls_take_the_place_of_equal_calls_in_the_default_gates(evidence: Any) -> None:
    nan = float("nan")
    compared = judged(evidence, "judge_tool_call", [1.0] * 150 + [nan] * 150, silent=150)
    assert [gate.metric for gate in default_gates(compared)] == ["judge_tool_call", "no_call", "answered"]
    assert [gate.metric for gate in gates_of_type(TOOLS)] == ["function_name_and_args", "no_call", "answered", "json_match"]
    assert decide(compared, [Gate("judge_tool_call", 0.1)]).verdict is Verdict.PROMOTE
    # The very answers are wrong by the metric.
    assert decide(compared, [Gate("function_name_and_args", 0.1)]).verdict is Verdict.KEEP


def test_a_row_without_a_verdict_counts_as_wrong_for_a_gate(evidence: Any) -> None:
    unreadable = [float("nan")] * 60 + [1.0] * 140
    assert decide(judged(evidence, "judge_tool_call", unreadable), [Gate("judge_tool_call", 0.1)]).verdict is Verdict.KEEP


@pytest.mark.parametrize(("share", "verdict"), [(0.5, Verdict.PROMOTE), (0.1, Verdict.KEEP)])
def test_pairs_are_held_against_a_draw(evidence: Any, share: float, verdict: Verdict) -> None:
    wins = [1.0] * round(400 * share) + [0.0] * round(400 * (1 - share))
    compared = judged(evidence, "judge_pairwise", wins, silent=400)
    assert compared.reference_scores["judge_pairwise"].value == 0.5
    assert decide(compared, [Gate("judge_pairwise", 0.1)]).verdict is verdict


def test_a_gate_on_a_column_that_no_judge_fills_says_where_judges_are_explained(evidence: Any) -> None:
    rows = evidence.rows(60)
    with pytest.raises(InvalidGate, match=r"no such metric here.*docs/judge\.md"):
        decide(evidence.compare(rows, evidence.arm(rows)), [Gate("judge_similarity", 0.1)])
