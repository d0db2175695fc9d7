"""Examples: the real rows on which an arm still loses, which no mean shows.

What belongs here: which arm a reader wants to see, and its worst rows as text. How they are laid out is said in `markdown`
and `html`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.gates import GateKind
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import ScoredPredictions
from flywheel_assets.core.rows import Answer, EvalRow


@dataclass(frozen=True, slots=True)
class Example:
    """One real row: what was asked, what was right, what was said (or the error), and its score (0..1)."""

    row_id: str
    asked: str
    expected: str
    answered: str
    score: float


@dataclass(frozen=True, slots=True)
class Losses:
    """What an arm lost on one metric: `lost` of the `rows` it applies to, and the worst of them."""

    metric: str
    lost: int
    rows: int
    examples: tuple[Example, ...]


def leading_arm(comparison: Comparison, metric: str) -> Arm | None:
    """The evaluated arm with the best mean on a metric; the first one listed where several are equal."""
    scored = [arm for arm in comparison.evaluated if arm.report and metric in arm.report.scores]
    return max(scored, key=lambda arm: _mean(arm, metric), default=None)


def arm_in_focus(comparison: Comparison, decision: Decision | None) -> Arm | None:
    """The arm a reader asks about: the winner, else the one closest to meeting every gate, else the best on average."""
    who = None if decision is None else _winner_or_closest(decision)
    if who is None:
        return leading_arm(comparison, MAIN_METRIC[comparison.workload_type])
    return next((arm for arm in comparison.evaluated if (arm.candidate, arm.variant.value) == who), None)


def gated_metrics(decision: Decision) -> tuple[str, ...]:
    """The metrics the registered gates look at, each once, in their order; no budgets."""
    gates = decision.evidence["settings"]["gates"]
    return tuple(dict.fromkeys(gate["metric"] for gate in gates if gate["kind"] != GateKind.BUDGET))


def losses_of(
    rows: Sequence[EvalRow], evaluation: ScoredPredictions, metrics: Sequence[str], *, limit: int = 4
) -> tuple[Losses, ...]:
    """What was lost on each metric, with at most `limit` examples each; metrics without a loss are left out."""
    found = []
    for metric in metrics:
        column = evaluation.scores[metric]
        if lost := int(np.sum(column < 1.0)):
            examples = losing_examples(rows, evaluation, metric, limit=limit)
            found.append(Losses(metric, lost, int(np.sum(~np.isnan(column))), examples))
    return tuple(found)


def losing_examples(
    rows: Sequence[EvalRow], evaluation: ScoredPredictions, metric: str, *, limit: int = 5
) -> tuple[Example, ...]:
    """The rows an arm does worst on, worst first, then in the order of the file; never one it got wholly right."""
    by_id = {row.row_id: row for row in rows}
    column = evaluation.scores[metric]
    lost = [int(i) for i in np.argsort(column, kind="stable") if column[i] < 1.0][:limit]
    return tuple(
        Example(
            row_id=prediction.row_id,
            asked=_last_question(by_id[prediction.row_id].request),
            expected=_say(reference),
            answered=_say(prediction.answer) if prediction.answer else f"(error) {prediction.error}",
            score=float(column[i]),
        )
        for i in lost
        for prediction, reference in ((evaluation.predictions[i], evaluation.references[i]),)
    )


def _winner_or_closest(decision: Decision) -> tuple[str, str] | None:
    if decision.candidate is not None and decision.variant is not None:
        return decision.candidate, decision.variant.value
    if closest := decision.evidence.get("closest"):
        return closest["candidate"], closest["variant"]
    judged = [arm for arm in decision.evidence["arms"] if arm["gates"]]
    if not judged:
        return None
    best = max(judged, key=lambda arm: min(float(gate["low"] + gate["margin"]) for gate in arm["gates"]))
    return best["candidate"], best["variant"]


def _mean(arm: Arm, metric: str) -> float:
    return arm.report.scores[metric].value if arm.report else 0.0


def _last_question(request: Mapping[str, Any]) -> str:
    """The last user message of a request, as text."""
    for message in reversed(request.get("messages") or ()):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return " ".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))
    return "(no user message)"


def _say(answer: Answer) -> str:
    calls = ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    text = json.dumps(answer.content, ensure_ascii=False) if answer.content else ""
    return " ".join(part for part in (calls, text) if part) or "(nothing)"
