"""The orders NeMo is given and what comes of them: plain data, the same for every version of its API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flywheel_assets.core.rows import EvalRow, Json, Prediction
from flywheel_assets.settings import Nim, TrainingSettings

Say = Callable[[str], None]


def silent(message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows in the form the Customizer reads, as files of a repository, and which rows they are."""

    files: Mapping[str, bytes]
    row_ids: Sequence[str]
    validation_rows: int
    not_drawn: int


@dataclass(frozen=True, slots=True)
class CustomizationOrder:
    """One LoRA training. `inputs` is the same for the same rows, model and settings, and for no others."""

    nim: Nim
    dataset: str
    settings: TrainingSettings
    inputs: str
    owner: str


@dataclass(frozen=True, slots=True)
class CustomizedModel:
    """What a training made: the name it is served under, its job, and its losses as `(step, loss)`."""

    name: str
    job: str
    steps: int
    epochs: int
    train_losses: Sequence[tuple[int, float]]
    validation_losses: Sequence[tuple[int, float]]
    seconds: float


@dataclass(frozen=True, slots=True)
class EvaluationOrder:
    """Rows to be put to a model by the Evaluator; `inputs` as in `CustomizationOrder`.

    `identity` is everything that decides what the model answers, beyond its name.
    """

    model: str
    identity: str
    rows: Sequence[EvalRow]
    prefix: Sequence[Json]
    judged: bool
    owner: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation job gave: a prediction a row in their order, and NeMo's own scores by `metric.score`."""

    job: str
    predictions: Sequence[Prediction]
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something of ours that runs in the cluster and that no living run uses."""

    kind: str
    name: str
    idle_s: float


@dataclass(frozen=True, slots=True)
class Files:
    """Training rows as they lie on this machine."""

    train: Sequence[Path]
    validation: Sequence[Path]
