"""The picture of scores over time on the page of an evaluation."""

from __future__ import annotations

from pathlib import Path

from flywheel_assets.assets.metadata import score_history
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.artifacts import Artifact


def version(created_at: float, **scores: float) -> Artifact:
    shown = {metric: {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40} for metric, value in scores.items()}
    manifest = {"created_at": created_at, "summary": {"scores": shown}}
    return Artifact("evals/base", Partition("tickets", "small"), str(created_at), Path(), manifest)


def test_one_evaluation_has_no_past_to_draw() -> None:
    assert score_history([version(1.0, f1=0.5)]) == {}


def test_two_evaluations_are_drawn_and_one_without_scores_is_none() -> None:
    skipped = version(2.0)
    assert score_history([version(1.0, f1=0.5), skipped]) == {}
    picture = score_history([version(1.0, f1=0.5), skipped, version(3.0, f1=0.6)])["over time"]
    assert "scores over time" in str(picture.value)
