from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.trainer.failure import FailureKind, TrainerError, explain
from flywheel_assets.trainer.job import Job, read_job_file
from tests.trainer.tiny_model import weather_row, write_rows


def content(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    rows = str(write_rows(tmp_path / "rows.jsonl", [weather_row(0)]))
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    hyper = {
        "epochs": 1,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "adapter_dim": 4,
        "adapter_dropout": 0.0,
        "max_seq_length": 256,
        "max_rows": None,
        "seed": 0,
        "save_steps": 5,
        "device": "cpu",
    }
    return {
        "model": str(model),
        "model_folder": None,
        "template": None,
        "train_files": [rows],
        "validation_files": [],
        "hyperparameters": hyper,
        "out_dir": str(tmp_path / "out"),
        "work_dir": str(tmp_path / "work"),
        "threads": 1,
        **changes,
    }


def failure(value: Any) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        Job.from_json(value).check_files()
    return caught.value


def test_a_job_survives_the_way_to_the_child(tmp_path: Path) -> None:
    job = Job.from_json(content(tmp_path))
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job.to_json()))
    assert read_job_file(file) == job


def test_unknown_and_missing_fields_are_named(tmp_path: Path) -> None:
    assert "`colour`" in failure(content(tmp_path, colour="red")).message
    hyper = content(tmp_path)["hyperparameters"]
    assert "`hyperparameters.rank`" in failure(content(tmp_path, hyperparameters={**hyper, "rank": 8})).message
    incomplete = content(tmp_path)
    del incomplete["out_dir"]
    assert "out_dir" in failure(incomplete).message


def test_an_unknown_device_is_refused_with_the_accepted_ones(tmp_path: Path) -> None:
    hyper = content(tmp_path)["hyperparameters"]
    assert "accepted: auto, cpu, cuda" in failure(content(tmp_path, hyperparameters={**hyper, "device": "tpu"})).message


@pytest.mark.parametrize("model", ["nowhere", "nowhere/model.gguf", "/nowhere/at/all"])
def test_a_missing_model_is_said_before_anything_heavy_is_loaded(tmp_path: Path, model: str) -> None:
    assert failure(content(tmp_path, model=model)).kind is FailureKind.MODEL_MISSING


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in failure(content(tmp_path, model=str(tmp_path / "empty"))).message


def test_organisation_slash_name_is_a_hub_id_only_where_no_such_file_exists(tmp_path: Path) -> None:
    assert Job.from_json(content(tmp_path, model="some-org/some-model")).is_hub_id
    assert not Job.from_json(content(tmp_path, model=str(tmp_path / "model"))).is_hub_id


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (MemoryError(), FailureKind.OUT_OF_MEMORY, "training.batch_size (now 4)"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureKind.OUT_OF_MEMORY, "max_seq_length (now 512)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FailureKind.OUT_OF_MEMORY, "batch_size"),
        (RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'"), FailureKind.DTYPE, "device to cpu"),
        (RuntimeError("Found no NVIDIA driver on your system"), FailureKind.NO_GPU, "device to cpu"),
        (KeyError("surprise"), FailureKind.UNEXPECTED, "trainer.log"),
    ],
)
def test_errors_of_the_stack_say_what_to_change(error: Exception, kind: FailureKind, says: str) -> None:
    failure = explain(error, batch_size=4, max_seq_length=512)
    assert failure.kind is kind
    assert says in failure.next_step
    assert TrainerError.from_json(failure.to_json()).to_json() == failure.to_json()


def test_the_trainer_stands_alone_and_costs_nothing_to_import() -> None:
    code = """
import sys
import flywheel_assets.trainer.run, flywheel_assets.trainer.__main__
ours = {n for n in sys.modules if n.startswith("flywheel_assets.") and not n.startswith("flywheel_assets.trainer")}
heavy = {"dagster", "torch", "transformers", "trl", "unsloth", "pydantic", "gguf", "numpy"} & set(sys.modules)
assert not ours and not heavy, (ours, heavy)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_that_cannot_run_leaves_its_reason_in_the_work_folder(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(content(tmp_path, model=str(tmp_path / "gone.gguf"))))
    done = subprocess.run([sys.executable, "-m", "flywheel_assets.trainer", str(file)], capture_output=True, text=True)
    assert done.returncode == 1
    said = json.loads((tmp_path / "work/error.json").read_text())
    assert said["kind"] == "model_missing"
    assert said["message"] in done.stderr
    assert not (tmp_path / "out").exists()
