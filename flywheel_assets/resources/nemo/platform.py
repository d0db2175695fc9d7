"""NeMo behind the platform seam: the same three verbs as on this machine, and nothing of the API in sight.

A run keeps the NIM it uses until it ends: between a training and the evaluation of what it made there must be no shutting
down and starting again, which takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.evaluation import evaluate
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.resources.nemo.work import CustomizedModel, EvaluationOrder, Files, Say, TrainingRows, silent
from flywheel_assets.resources.platform import Adapter, Progress, TrainingOrder
from flywheel_assets.resources.prediction_cache import CACHE_FILE, PredictionCache
from flywheel_assets.resources.serving import Endpoint, Serving, ServingError
from flywheel_assets.resources.serving.endpoint import GATEWAY_TEMPLATE
from flywheel_assets.resources.training import HostedAdapter, TrainedAdapter
from flywheel_assets.settings import Candidate, EvaluationSettings, Nim, NimImage, Settings, cluster_judges


@dataclass(frozen=True, slots=True)
class NimEndpoint(Endpoint):
    """A NIM behind the proxy, and the run that asked for it."""

    owner: str = ""


class NemoPlatform:
    """One cluster as a platform. Inside `run()` deployments are kept until the run ends, else until their block does."""

    def __init__(self, settings: Settings, nemo: NemoV1, say: Say = silent) -> None:
        self._settings, self._nemo, self._say = settings, nemo, say
        self._kept: ExitStack | None = None
        self._kept_names: set[str] = set()

    @classmethod
    def of(cls, settings: Settings, say: Say = silent) -> NemoPlatform:
        """The platform of a flywheel home; nothing is connected to before it is used."""
        return cls(settings, NemoV1(settings.nemo, settings.home), say)

    @contextmanager
    def run(self) -> Iterator[NemoPlatform]:
        """One run: what it deployed is given back when the block ends, however it ends."""
        with ExitStack() as kept:
            self._kept, self._kept_names = kept, set()
            try:
                yield self
            finally:
                self._kept = None

    def train(self, context: dg.AssetExecutionContext, candidate: Candidate, order: TrainingOrder) -> TrainedAdapter:
        """Train with the Customizer; the adapter stays there, and is known by the name it is served under."""
        nim = _nim_of(candidate)
        files = Files(order.train_files, order.validation_files)
        # Held from here on: the base evaluation of this cell uses it meanwhile, and what is trained will be served by it.
        with self._judges(context.run_id), self._deployment(nim, context.run_id):
            model, rows = self._nemo.customize(
                nim, files, order.settings, inputs=order.inputs_key, owner=context.run_id, say=self._say
            )
        return TrainedAdapter(None, None, _report(nim, model, rows), HostedAdapter(model.name))

    @contextmanager
    def deployed(self, candidate: Candidate, *, adapter: Adapter | None, owner: str) -> Iterator[Endpoint]:
        """The candidate's NIM, ready and listing the model that is asked for; or the URL a candidate already has."""
        if candidate.is_remote:
            with Serving().deployed(candidate, adapter_gguf=None, owner=owner) as endpoint:
                yield endpoint
            return
        if isinstance(adapter, Path):
            raise ServingError(
                f"candidate '{candidate.id}': its adapter was trained on this machine, and a NIM cannot load it. "
                "Materialize `adapter` again on platform nemo."
            )
        nim = _nim_of(candidate)
        with self._judges(owner), self._deployment(nim, owner):
            model = adapter or candidate.model
            self._nemo.deployments.await_model(nim, model, self._say)
            yield NimEndpoint(
                base_url=f"{self._settings.nemo.nim_url}/v1",
                model=model,
                engine_build=f"nim {nim.tag or 'of somebody else'}",
                model_identity=f"nim:{candidate.model}:{nim.tag or ''}",
                template_identity=GATEWAY_TEMPLATE,
                adapter_identity=adapter,
                can_load_adapter=True,
                adapter_by_request=False,
                context_length=candidate.context_length,
                api_key=self._nemo.connection.key,
                owner=owner,
            )

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
        """Have the Evaluator ask, or ask from here, as `nemo.evaluation` says."""
        if self._settings.nemo.evaluation == "direct" or not isinstance(endpoint, NimEndpoint):
            with PredictionCache(self._settings.home / CACHE_FILE) as cache:
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
        order = EvaluationOrder(
            model=endpoint.model,
            identity="|".join(
                (
                    endpoint.model_identity,
                    endpoint.adapter_for(variant) or "",
                    *(() if endpoint.again is None else (endpoint.again,)),
                )
            ),
            rows=rows,
            prefix=prefix,
            judged=settings.tool_eval_type == "judge",
            owner=endpoint.owner,
        )
        evaluated = self._nemo.evaluator.evaluate(order, lambda done: progress(done, len(rows), 0, 0), self._say)
        errors = sum(prediction.error is not None for prediction in evaluated.predictions)
        progress(len(rows), len(rows), 0, errors)
        for name, value in evaluated.scores.items():
            self._say(f"{variant}: NeMo's own {name} is {value:.3f}")
        endpoint.remarks.update(evaluation_job=evaluated.job, nemo_scores=dict(evaluated.scores))
        return list(evaluated.predictions)

    @contextmanager
    def _deployment(self, nim: NimImage, owner: str) -> Iterator[None]:
        if self._kept is None:
            with self._nemo.deployments.using(nim, owner, self._say):
                yield
            return
        if nim.deployment_name not in self._kept_names:
            self._kept.enter_context(self._nemo.deployments.using(nim, owner, self._say))
            self._kept_names.add(nim.deployment_name)
        yield

    @contextmanager
    def _judges(self, owner: str) -> Iterator[None]:
        """The judges among our NIMs, up before the first candidate is, also where that is trained first and judged later.

        Taken in another order, runs that hold candidates and runs that hold a judge would wait for each other's GPUs.
        """
        judge, judges = self._settings.nemo.judge, cluster_judges(self._settings)
        with ExitStack() as held:
            for nim in judges:
                held.enter_context(self._deployment(nim, owner))
            if judge is not None and judge.nim in judges:
                # The Evaluator asks it, and does not wait for it.
                self._nemo.deployments.await_model(judge.nim, judge.model_name, self._say)
            yield


def _nim_of(candidate: Candidate) -> Nim:
    if candidate.nim is None:
        raise ServingError(f"candidate '{candidate.id}' is no NIM. On platform nemo candidates stand under `nims`.")
    return candidate.nim


def _report(nim: Nim, model: CustomizedModel, rows: TrainingRows) -> Json:
    """The training report in the form the trainer of this machine writes one."""
    config = nim.customizer_configs
    assert config is not None
    losses = [loss for _, loss in model.validation_losses]
    return {
        "row_ids": list(rows.row_ids),
        "loss_curve": [{"step": step, "loss": loss} for step, loss in model.train_losses],
        "validation": {
            "rows": rows.validation_rows,
            "loss_before": losses[0] if losses else None,
            "loss_after": losses[-1] if losses else None,
            "too_long": 0,
        },
        # Longer rows are cut off by the Customizer, which does not say how many.
        "rows": {"used": len(rows.row_ids), "too_long": 0, "not_drawn": rows.not_drawn},
        "steps": model.steps,
        "epochs": model.epochs,
        "tokens_per_s": None,
        "seconds": {"train": model.seconds},
        "device": {"kind": "nemo", "name": f"NeMo Customizer, {config.target}", "dtype": config.training_precision},
        "customization_job": model.job,
    }
