from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel_assets.trainer.failure import FailureKind, TrainerError
from flywheel_assets.trainer.report import Reporter, write_json


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    error = info


def test_many_quick_steps_are_a_few_lines_but_the_first_and_the_last_are_always_said(tmp_path: Path) -> None:
    heard = Heard()
    reporter = Reporter(tmp_path, heard)
    for step in range(1, 501):
        reporter.step(step=step, of=500, loss=1 / step, tokens_per_s=100, seconds_left=500 - step)
    assert len(heard.lines) == 2
    assert "step 1/500" in heard.lines[0]
    assert "step 500/500" in heard.lines[1]
    now = json.loads((tmp_path / "progress.json").read_text())
    assert (now["step"], now["of"], now["seconds_left"]) == (500, 500, 0)


def test_a_failure_is_one_message_and_the_same_in_a_file(tmp_path: Path) -> None:
    heard = Heard()
    Reporter(tmp_path, heard).failed(TrainerError(FailureKind.NO_GPU, "No GPU.", "Use cpu."))
    assert heard.lines == ["No GPU. Use cpu."]
    assert json.loads((tmp_path / "error.json").read_text()) == {
        "kind": "no_gpu",
        "message": "No GPU.",
        "next_step": "Use cpu.",
    }


def test_a_number_that_json_does_not_know_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}
