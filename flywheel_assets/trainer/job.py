"""The job: what one training is asked to do, as it travels from the parent to the child.

What belongs here: the fields, their JSON form and the checks that need no model. What does not: defaults of
hyper-parameters, which are settings and are always sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .failure import FailureKind, TrainerError

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How to train. `dtype` is auto, float32, bfloat16 or float16; auto is 32-bit floats on a CPU."""

    epochs: int
    batch_size: int
    learning_rate: float
    adapter_dim: int
    adapter_dropout: float
    max_seq_length: int
    max_rows: int | None
    seed: int
    save_steps: int
    device: str
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class Job:
    """One training.

    `model` is a folder, a GGUF file or a hub id; `model_folder` is where the trainable folder of a GGUF is kept (made when
    missing). `template` is the text of a chat template; None keeps the model's own. `work_dir` holds checkpoints,
    progress.json, error.json and trainer.log; a job of the same content started again in it resumes. `out_dir` appears
    complete or not at all. `validation_rows` bounds the rows the loss is examined on.
    """

    model: str
    model_folder: str | None
    template: str | None
    train_files: tuple[str, ...]
    validation_files: tuple[str, ...]
    hyperparameters: Hyperparameters
    out_dir: str
    work_dir: str
    threads: int | None
    validation_rows: int = 32
    parent_pid: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for Pipes extras or a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Job:
        """Read a job; TrainerError names the first field that is missing, unknown or of the wrong kind."""
        if not isinstance(value, dict):
            raise _bad(f"a job is a JSON object, found {type(value).__name__}")
        content = dict(value)
        hyper = content.get("hyperparameters")
        if not isinstance(hyper, dict):
            raise _bad("`hyperparameters` is missing or no object")
        content["hyperparameters"] = _construct(Hyperparameters, hyper, "hyperparameters.")
        for key in ("train_files", "validation_files"):
            if not isinstance(content.get(key), list | tuple):
                raise _bad(f"`{key}` is missing or no list")
            content[key] = tuple(str(path) for path in content[key])
        job: Job = _construct(cls, content, "")
        if job.hyperparameters.device not in ("auto", "cpu", "cuda"):
            raise _bad(f"`hyperparameters.device` is {job.hyperparameters.device!r}; accepted: auto, cpu, cuda")
        if job.hyperparameters.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise _bad(
                f"`hyperparameters.dtype` is {job.hyperparameters.dtype!r}; accepted: auto, float32, bfloat16, float16"
            )
        return job

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file, which becomes a trainable folder first."""
        return self.model.lower().endswith(".gguf")

    @property
    def is_hub_id(self) -> bool:
        """Whether the model is to be fetched from a hub: `organisation/name`, and nothing of that name on disk."""
        return bool(_HUB_ID.match(self.model)) and not Path(self.model).exists()

    def check_files(self) -> None:
        """Refuse before anything heavy is loaded: TrainerError where the model or a row file is not there."""
        model = Path(self.model)
        if self.is_gguf:
            if not model.is_file():
                raise _no_model(f"the model file {model} does not exist")
            if self.model_folder is None:
                raise _bad("`model_folder` is missing: a GGUF file needs a folder to be unpacked into")
        elif not self.is_hub_id:
            if not model.is_dir():
                raise _no_model(f"the model folder {model} does not exist")
            if not (model / "config.json").is_file():
                raise _no_model(f"the model folder {model} holds no config.json")
        for path in (*self.train_files, *self.validation_files):
            if not Path(path).is_file():
                raise _bad(f"the row file {path} does not exist")


def read_job_file(path: Path) -> Job:
    """The job in a JSON file; TrainerError where it cannot be read."""
    try:
        return Job.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _bad(f"the job file {path} cannot be read: {error}") from None


def _construct(cls: Any, content: dict[str, Any], prefix: str) -> Any:
    known = {field.name for field in fields(cls)}
    if unknown := sorted(set(content) - known):
        raise _bad(f"unknown field `{prefix}{unknown[0]}`; known: {', '.join(sorted(known))}")
    try:
        return cls(**content)
    except TypeError as error:
        raise _bad(f"{prefix or 'job'}: {error}") from None


def _bad(what: str) -> TrainerError:
    return TrainerError(FailureKind.BAD_JOB, f"The training job cannot be used: {what}.", "Start it through `flywheel run`.")


def _no_model(what: str) -> TrainerError:
    return TrainerError(
        FailureKind.MODEL_MISSING,
        f"The candidate cannot be trained: {what}.",
        "Set the candidate's `model` in flywheel.yaml to a model folder or GGUF file that exists.",
    )
