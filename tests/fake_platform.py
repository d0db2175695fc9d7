"""A platform without models: trains by writing small files, answers by a rule a test can set. The edge of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.platform import TrainingOrder
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.resources.training import TrainedAdapter
from flywheel_assets.settings import Candidate

Rule = Callable[[str, Variant, EvalRow], Answer | None]
_TEMPLATE = "{{ messages }}"


def right(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """Always what the teacher said."""
    return row.reference


def talkative(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """Calls no tool unless it was customized."""
    return row.reference if variant is Variant.CUSTOMIZED else Answer("I would rather write Python.")


@dataclass
class FakePlatform:
    """Counts what it is asked. `answers` gives None for an error; `train_error` is raised instead of training; `urls` says
    where a candidate that is really asked answers, by its id; `latency_ms` how fast one is, 10 ms where it says nothing."""

    answers: Rule = talkative
    train_error: dict[str, Exception] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    questions: int = 0
    deployed_now: int = 0
    samples: dict[str, set[int]] = field(default_factory=dict)
    most_deployed: int = 0
    urls: dict[str, str] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)

    def train(self, context: Any, candidate: Candidate, order: TrainingOrder) -> TrainedAdapter:
        if candidate.id in self.train_error:
            raise self.train_error[candidate.id]
        self.trained.append(candidate.id)
        rows = [line for path in order.train_files for line in path.read_text().splitlines()]
        folder = order.out_dir / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_text(candidate.id + sha256("".join(rows).encode()).hexdigest())
        (folder / "chat_template.jinja").write_text(_TEMPLATE)
        gguf = order.out_dir / "adapter.gguf"
        gguf.write_text("gguf of " + candidate.id)
        report: Json = {
            "row_ids": [],
            # Floats throughout, as the trainer writes them.
            "loss_curve": [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}],
            "validation": {"rows": 3, "loss_before": 2.0, "loss_after": 1.0, "too_long": 0},
            "rows": {"used": len(rows), "too_long": 0, "not_drawn": 0},
            "steps": 2,
            "tokens_per_s": 100.0,
            "seconds": {"train": 1.0},
            "device": {"kind": "cpu", "name": "fake", "dtype": "float32"},
        }
        return TrainedAdapter(folder, gguf, report)

    @contextmanager
    def deployed(self, candidate: Candidate, *, adapter: Path | None, owner: str) -> Iterator[Endpoint]:
        self.deployed_now += 1
        self.most_deployed = max(self.most_deployed, self.deployed_now)
        try:
            yield Endpoint(
                base_url=self.urls.get(candidate.id, "http://127.0.0.1:9/v1"),
                model=candidate.id,
                engine_build="fake",
                model_identity=candidate.model,
                template_identity=sha256(_TEMPLATE.encode()).hexdigest(),
                adapter_identity=None if adapter is None else sha256(adapter.read_bytes()).hexdigest(),
                can_load_adapter=not candidate.is_remote,
            )
        finally:
            self.deployed_now -= 1

    def ask(
        self,
        endpoint: Endpoint,
        rows: Sequence[EvalRow],
        *,
        variant: Variant,
        prefix: Sequence[Json],
        settings: Any,
        progress: Callable[[int, int, int, int], None],
        sample: int = 0,
    ) -> list[Prediction]:
        self.questions += len(rows)
        self.samples.setdefault(endpoint.model, set()).add(sample)
        progress(len(rows), len(rows), 0, 0)
        answers = [(row, self.answers(endpoint.model, variant, row)) for row in rows]
        took = self.latency_ms.get(endpoint.model, 10.0)
        return [
            Prediction(row.row_id, answer, took, 5, 5, None if answer is not None else "500 from the server")
            for row, answer in answers
        ]
