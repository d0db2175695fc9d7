"""The platform seam: train a candidate, serve it, ask it. The assets are written against `Platform`, once.

`LocalPlatform` is this machine: Unsloth in a child process, llama.cpp's server in a child process, or somebody's URL.
`resources.nemo.platform` is a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dagster as dg

from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.chat_templates import resolve_template
from flywheel_assets.resources.evaluation import evaluate
from flywheel_assets.resources.leases import LeaseTable
from flywheel_assets.resources.model_identity import model_path
from flywheel_assets.resources.prediction_cache import CACHE_FILE, PredictionCache
from flywheel_assets.resources.serving import Endpoint, Serving, ServingError
from flywheel_assets.resources.serving.deployment import GPU_POOL
from flywheel_assets.resources.training import HostedAdapter, TrainedAdapter, TrainingJob, run_training
from flywheel_assets.settings import Candidate, EvaluationSettings, Settings, TrainingSettings
from flywheel_assets.settings.local_models import gguf_at

Progress = Callable[[int, int, int, int], None]
"""Called with done, total, reused from the cache, errors."""

Readings = Callable[[int, Mapping[str, float]], None]
"""Called with an optimizer step and the numbers read after it (`loss`, `tokens_per_s`), while a training runs."""

Adapter = Path | HostedAdapter
"""Where an adapter is: a GGUF file of this machine, or the name a platform serves it under."""


def _unheard(step: int, values: Mapping[str, float]) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """What to train a candidate on, and where the result goes. `work_dir` survives a killed run: checkpoints lie there.

    `inputs_key` is the same for the same rows, model and settings, and for no others. `readings` hears of steps as they
    come; not of every one.
    """

    train_files: Sequence[Path]
    validation_files: Sequence[Path]
    settings: TrainingSettings
    out_dir: Path
    work_dir: Path
    inputs_key: str
    readings: Readings = _unheard


class Platform(Protocol):
    """Where training, serving and evaluation run."""

    def train(self, context: dg.AssetExecutionContext, candidate: Candidate, order: TrainingOrder) -> TrainedAdapter:
        """Fine-tune a candidate; blocks until the adapter lies in `order.out_dir`, or is served under a name."""
        ...

    def deployed(self, candidate: Candidate, *, adapter: Adapter | None, owner: str) -> AbstractContextManager[Endpoint]:
        """A candidate behind an OpenAI-compatible endpoint, given back when the block ends. `owner` is a run id."""
        ...

    def ask(
        self,
        endpoint: Endpoint,
        rows: Sequence[EvalRow],
        *,
        variant: Variant,
        prefix: Sequence[Json],
        settings: EvaluationSettings,
        progress: Progress,
        sample: int = 0,
    ) -> list[Prediction]:
        """One prediction a row, in the order of the rows. `sample` as in `resources.evaluation.evaluate`."""
        ...


@dataclass(frozen=True, slots=True)
class LocalPlatform:
    """This machine as a platform."""

    settings: Settings
    serving: Serving
    leases: LeaseTable
    cache_file: Path

    @classmethod
    def of(cls, settings: Settings) -> LocalPlatform:
        """The platform of a flywheel home; nothing is started or opened before it is used."""
        leases = LeaseTable(settings.home / "leases.sqlite")
        serving = Serving(settings.resolve, settings.root, leases, settings.local.gpu_budget)
        return cls(settings, serving, leases, settings.home / CACHE_FILE)

    def train(self, context: dg.AssetExecutionContext, candidate: Candidate, order: TrainingOrder) -> TrainedAdapter:
        """Fine-tune in a child process; a GPU candidate waits for its share of the budget first."""
        path = model_path(self.settings, candidate)
        job = TrainingJob(
            # A folder with weights to train beside its GGUF file is trained from those; without any, from that file.
            model=path if (path / "config.json").is_file() else gguf_at(path),
            template=resolve_template(candidate, self.settings.root),
            train_files=tuple(order.train_files),
            validation_files=tuple(order.validation_files),
            settings=order.settings,
            out_dir=order.out_dir,
            work_dir=order.work_dir,
            cache_dir=self.settings.home / "cache" / "models",
            threads=self.settings.local.threads,
        )
        with self.leases.acquire(
            GPU_POOL,
            weight=candidate.gpus,
            budget=self.settings.local.gpu_budget,
            owner=context.run_id,
            announce=context.log.info,
        ):
            return run_training(context, job, timeout=order.settings.timeout_minutes * 60, readings=order.readings)

    @contextmanager
    def deployed(self, candidate: Candidate, *, adapter: Adapter | None, owner: str) -> Iterator[Endpoint]:
        """The candidate's own server, or the URL it already has."""
        if isinstance(adapter, str):
            raise ServingError(
                f"candidate '{candidate.id}': its adapter is {adapter} of a cluster, and does not lie on this machine. "
                "Materialize `adapter` again on platform local."
            )
        with self.serving.deployed(
            candidate,
            adapter_gguf=adapter,
            owner=owner,
            threads=self.settings.local.threads,
            # Measured on two cores, demo, one candidate: two runs at once with four slots each took 401 s; one slot and
            # one thread for each took 600 s, one run at a time with both cores was no faster.
            parallel=self.settings.evaluation.concurrency,
        ) as endpoint:
            yield endpoint

    def ask(
        self,
        endpoint: Endpoint,
        rows: Sequence[EvalRow],
        *,
        variant: Variant,
        prefix: Sequence[Json],
        settings: EvaluationSettings,
        progress: Progress,
        sample: int = 0,
    ) -> list[Prediction]:
        """Ask what the prediction cache does not hold."""
        with PredictionCache(self.cache_file) as cache:
            return evaluate(
                endpoint,
                rows,
                variant=variant,
                prefix_messages=prefix,
                settings=settings,
                cache=cache,
                progress=progress,
                sample=sample,
            )
