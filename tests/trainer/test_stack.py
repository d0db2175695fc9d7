from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from flywheel_assets.trainer import stack
from flywheel_assets.trainer.failure import FailureKind, TrainerError
from flywheel_assets.trainer.fit import MIN_VALIDATION_ROWS, validation_sample
from flywheel_assets.trainer.job import Job
from flywheel_assets.trainer.rows import Example
from tests.trainer.test_job import content


def test_a_missing_package_is_named_with_the_commands_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "unsloth" else real(name))
    with pytest.raises(TrainerError, match="needs unsloth,") as caught:
        stack.require_installed()
    assert caught.value.kind is FailureKind.NOT_INSTALLED
    assert "make setup" in caught.value.next_step
    assert "--no-deps unsloth" in caught.value.next_step


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", variables)
    return variables


def test_a_local_model_never_asks_a_hub_and_nothing_is_reported_to_anybody(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    stack.prepare_environment(Job.from_json(content(tmp_path)))
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert environment["UNSLOTH_COMPILE_LOCATION"].startswith(str(tmp_path / "work"))
    assert (environment["OMP_WAIT_POLICY"], environment["OMP_NUM_THREADS"]) == ("PASSIVE", "1")


def test_a_hub_id_may_be_fetched(tmp_path: Path, environment: dict[str, str]) -> None:
    stack.prepare_environment(Job.from_json(content(tmp_path, model="some-org/some-model")))
    assert "HF_HUB_OFFLINE" not in environment


def test_the_look_at_validation_rows_costs_a_fraction_of_the_training() -> None:
    rows = [Example(str(i), [0] * 100, [0] * 100) for i in range(50)]
    assert len(validation_sample(rows, training_tokens=1_000_000, most_rows=32)) == 32
    assert len(validation_sample(rows, training_tokens=10_000, most_rows=32)) == 10
    assert len(validation_sample(rows, training_tokens=10, most_rows=32)) == MIN_VALIDATION_ROWS
    assert validation_sample([], training_tokens=10, most_rows=32) == []


def test_a_cpu_trains_the_last_layers_and_a_gpu_all_of_them() -> None:
    cpu, gpu = stack.Device("cpu", "CPU", "float32"), stack.Device("cuda", "GPU", "bfloat16")
    assert stack.trained_blocks(30, cpu) == list(range(12, 30))
    assert stack.trained_blocks(1, cpu) == [0]
    assert stack.trained_blocks(30, gpu) is None
