"""Customizer: LoRA trainings as jobs, with their progress, their losses and their end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import nemo_microservices
import orjson
from nemo_microservices.types.customization import CustomizationJob, CustomizationStatusDetails

from flywheel_assets.resources.nemo.errors import JobStalled, NotEnoughResources
from flywheel_assets.resources.nemo.ledger import Ledger
from flywheel_assets.resources.nemo.polling import Stall, looks
from flywheel_assets.resources.nemo.v1.connection import Connection
from flywheel_assets.resources.nemo.v1.jobs import DONE, Jobs
from flywheel_assets.resources.nemo.work import CustomizationOrder, CustomizedModel, Say
from flywheel_assets.settings import Nim

_NO_ROOM = "NotEnoughResources"
_LISTED = 100


class Customizer:
    """Customization jobs of one namespace."""

    def __init__(self, connection: Connection, ledger: Ledger, home: str) -> None:
        self._connection = connection
        self.jobs: Jobs[CustomizationJob] = Jobs(
            "customization",
            connection,
            ledger,
            home,
            retrieve=lambda job: connection.api.customization.jobs.retrieve(job),
            listed=self._listed,
            cancel=lambda job: connection.api.customization.jobs.cancel(job),
        )

    def customize(self, order: CustomizationOrder, say: Say) -> CustomizedModel:
        """Train; takes minutes to hours. Raises JobFailed, JobStalled, NotEnoughResources with the job's last word."""
        config = self._ensure_config(order.nim)
        with self.jobs.owned(order.inputs, order.owner, lambda: self._create(config, order), say) as job:
            assert job.id is not None
            details = self._ended(job.id, order.settings.timeout_minutes, say)
            # The name it is served under is the service's to say, and known once it was accepted.
            return _customized(job, details)

    def _listed(self) -> Iterator[CustomizationJob]:
        namespace = self._connection.settings.namespace
        return iter(
            self._connection.api.customization.jobs.list(
                filter={"namespace": namespace}, page_size=_LISTED, sort="-created_at"
            )
        )

    def _ensure_config(self, nim: Nim) -> str:
        """The configuration of a NIM's training, named by its content; `namespace/name`."""
        body = config_body(nim)
        digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
        namespace = self._connection.settings.namespace
        name = f"{nim.deployment_name}-{digest}"
        configs = self._connection.api.customization.configs

        def ensure() -> None:
            try:
                configs.retrieve(name, namespace=namespace)
            except nemo_microservices.NotFoundError:
                try:
                    configs.create(name=name, namespace=namespace, **body)
                except nemo_microservices.ConflictError:
                    return

        self._connection.do(f"customization config {namespace}/{name} (target {body['target']})", ensure)
        return f"{namespace}/{name}"

    def _create(self, config: str, order: CustomizationOrder) -> CustomizationJob:
        marks = self.jobs.marks(order.inputs, order.owner)
        body = job_body(config, order, self._connection.settings.namespace, marks)
        return self._connection.api.customization.jobs.create(**body)

    def _ended(self, job: str, timeout_minutes: float, say: Say) -> CustomizationStatusDetails:
        """The status of a job that is done, with a line whenever it got on."""
        settings = self._connection.settings
        stall, no_room = Stall(), Stall()
        told = -1.0
        for waited in looks(settings.poll_longest_s):
            details = self._connection.do(
                f"status of customization job {job}", lambda: self._connection.api.customization.jobs.status(job)
            )
            if details.status in DONE:
                return details
            if details.status in ("failed", "cancelled", "cancelling"):
                raise self.jobs.failed(job, f"is {details.status}: {_last_word(details)}")
            done = details.percentage_done or 0.0
            stall.note((details.status, done, details.steps_completed, details.epochs_completed))
            no_room.note(_lacks_room(details))
            if done > told:
                told = done
                say(_progress_line(job, details))
            if waited >= 60 * timeout_minutes:
                raise self.jobs.failed(job, f"took longer than {timeout_minutes:g} minutes (training.timeout_minutes).")
            if _lacks_room(details) and no_room.for_s >= 60 * settings.resources_timeout_minutes:
                raise NotEnoughResources(
                    f"customization job {job}: NotEnoughResources ({_last_word(details)}). Free GPUs in the cluster, or "
                    "lower `customizer_configs.gpus`; `nemo.resources_timeout_minutes` says how long to wait for them."
                )
            if stall.for_s >= 60 * settings.stall_timeout_minutes:
                raise JobStalled(
                    f"customization job {job} made no progress for {settings.stall_timeout_minutes:g} minutes at "
                    f"{done:g}% ({_last_word(details)}). `nemo.stall_timeout_minutes` says how long to wait."
                )
        raise AssertionError("unreachable: looks never end")


def config_body(nim: Nim) -> dict[str, Any]:
    """What a customization configuration is made of, without its name."""
    config = nim.customizer_configs
    assert config is not None, "settings demand a target of every NIM that is trained"
    option = {
        "training_type": "sft",
        "finetuning_type": "lora",
        "num_gpus": config.gpus,
        "num_nodes": config.num_nodes,
        "tensor_parallel_size": config.tensor_parallel_size,
        "micro_batch_size": config.micro_batch_size,
        "use_sequence_parallel": config.use_sequence_parallel,
        **({} if config.data_parallel_size is None else {"data_parallel_size": config.data_parallel_size}),
    }
    return {
        "target": config.target,
        "max_seq_length": config.max_seq_length,
        "training_precision": config.training_precision,
        "training_options": [option],
    }


def job_body(config: str, order: CustomizationOrder, namespace: str, marks: dict[str, str]) -> dict[str, Any]:
    """What a customization job is made of. Its model is named `<base>@<job>`, the same for the same inputs."""
    settings = order.settings
    name = f"{order.nim.deployment_name}-{order.inputs[:16]}"
    return {
        "name": name,
        "namespace": namespace,
        "config": config,
        "dataset": {"name": order.dataset, "namespace": namespace},
        "output_model": f"{namespace}/{order.nim.deployment_name}@{name}",
        "hyperparameters": {
            "training_type": settings.training_type,
            "finetuning_type": settings.finetuning_type,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            # Also 0: left out, it would be drawn at random.
            "seed": settings.seed,
            "lora": {"adapter_dim": settings.adapter_dim, "adapter_dropout": settings.adapter_dropout},
        },
        "custom_fields": marks,
    }


def _customized(job: CustomizationJob, details: CustomizationStatusDetails) -> CustomizedModel:
    assert job.id is not None
    values = details.metrics.metrics if details.metrics is not None else None
    return CustomizedModel(
        name=job.output_model or job.id,
        job=job.id,
        steps=details.steps_completed or 0,
        epochs=details.epochs_completed or 0,
        train_losses=_losses(values.train_loss if values else None, details.steps_completed, details.train_loss),
        validation_losses=_losses(values.val_loss if values else None, details.steps_completed, details.val_loss),
        seconds=details.elapsed_time or 0.0,
    )


def _losses(curve: Sequence[Any] | None, steps: int | None, last: float | None) -> list[tuple[int, float]]:
    points = [(point.step or 0, point.value) for point in curve or () if point.value is not None]
    return points or ([] if last is None else [(steps or 0, last)])


def _lacks_room(details: CustomizationStatusDetails) -> bool:
    log = details.status_logs or []
    return bool(log) and log[-1].message == _NO_ROOM


def _last_word(details: CustomizationStatusDetails) -> str:
    """The last thing the service said about a job that says something."""
    for entry in reversed(details.status_logs or ()):
        if entry.detail or entry.message:
            return " ".join(str(entry.detail or entry.message).split())[:400]
    return "the service gives no reason"


def _progress_line(job: str, details: CustomizationStatusDetails) -> str:
    loss = "" if details.train_loss is None else f", loss {details.train_loss:.3f}"
    steps = f"step {details.steps_completed or 0}, epoch {details.epochs_completed or 0}"
    return f"customization job {job}: {details.percentage_done or 0.0:.0f}% ({steps}{loss})"
