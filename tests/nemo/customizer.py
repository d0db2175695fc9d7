"""Customizer of the NeMo test server: configurations and jobs whose status follows from the time that has passed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nemo_microservices.types.customization import ConfigCreateParams, JobCreateParams

from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, checked, now_text, page, parameters

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer

_CONFIG = parameters(ConfigCreateParams)
_JOB = parameters(JobCreateParams)
_JOBS = "/v1/customization/jobs"


@dataclass
class Job:
    """One customization job. `rows` are what it trains on; `lasts_s` how long it runs at least; `ended` when it was
    cancelled, `finished` when it was first seen at its end. It does not reach that before `may_finish` says so."""

    id: str
    body: Json
    model: str
    created: float
    lasts_s: float
    rows: list[Json]
    fails: str | None = None
    stalls_at: float | None = None
    log: list[Json] = field(default_factory=list)
    ended: float | None = None
    finished: float | None = None
    may_finish: Callable[[Job], bool] = lambda job: True
    created_at: str = field(default_factory=now_text)

    def progress(self) -> float:
        """Percentage done."""
        elapsed = (self.ended or time.monotonic()) - self.created
        done = 100.0 if self.lasts_s <= 0 else min(100.0, 100.0 * elapsed / self.lasts_s)
        if self.stalls_at is not None:
            return min(done, self.stalls_at)
        if done >= 100.0 and self.finished is None:
            if not self.may_finish(self):
                return 99.0
            self.finished = time.monotonic()
        return done

    def status(self) -> str:
        if self.ended is not None:
            return "cancelled"
        if self.progress() < 100.0:
            return "running"
        return "failed" if self.fails else "completed"


class Customizer:
    """`targets` maps the targets there are to their base models; the others are knobs for the jobs still to come."""

    def __init__(self, server: NemoServer) -> None:
        self._server = server
        self.targets: dict[str, str] = {}
        self.configs: dict[str, Json] = {}
        self.jobs: dict[str, Job] = {}
        self.training_s = 0.0
        self.seconds_of: dict[str, float] = {}
        self.fails: dict[str, str] = {}
        self.stalls_at: float | None = None
        self.not_enough_resources = False
        self.may_finish: Callable[[Job], bool] = lambda job: True

    def routes(self, routes: Routes) -> None:
        routes.add("POST", "/v1/customization/configs", self._create_config)
        routes.add("GET", "/v1/customization/configs", lambda asked: Answered(page(list(self.configs.values()), asked)))
        routes.add("GET", "/v1/customization/configs/{namespace}/{name*}", self._config)
        routes.add("GET", "/v1/customization/targets", self._list_targets)
        routes.add("POST", _JOBS, self._create_job)
        routes.add("GET", _JOBS, lambda asked: Answered(page([self._shown(job) for job in self._newest_first()], asked)))
        routes.add("GET", f"{_JOBS}/{{id}}", lambda asked: Answered(self._shown(self._find(asked))))
        routes.add("GET", f"{_JOBS}/{{id}}/status", lambda asked: Answered(self._details(self._find(asked))))
        routes.add("POST", f"{_JOBS}/{{id}}/cancel", self._cancel)

    def alive(self) -> list[Job]:
        """Jobs that still cost something."""
        return [job for job in self.jobs.values() if job.status() in ("created", "pending", "running")]

    def finished_adapters(self, base_model: str) -> dict[str, float]:
        """Names of the adapters that were made of a model, with when each was finished (monotonic)."""
        return {
            job.model: job.finished or 0.0
            for job in self.jobs.values()
            if job.status() == "completed" and self._base_of(job) == base_model
        }

    def _base_of(self, job: Job) -> str:
        return self.targets[self.configs[job.body["config"]]["target"]]

    def _newest_first(self) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: job.created, reverse=True)

    def _list_targets(self, asked: Asked) -> Answered:
        shown = [
            {"name": name, "base_model": base, "model_path": name, "num_parameters": 1, "precision": "bf16-mixed"}
            for name, base in self.targets.items()
        ]
        return Answered(page(shown, asked))

    def _create_config(self, asked: Asked) -> Answered:
        body = checked(*_CONFIG, asked.json())
        name = f"{self._server.entities.require_namespace(body.get('namespace'))}/{body['name']}"
        if name in self.configs:
            raise Refused(409, f"config '{name}' already exists")
        if body.get("target") not in self.targets:
            raise Refused(404, f"target '{body.get('target')}' does not exist")
        if not body["training_options"]:
            raise Refused(422, "training_options: at least one is needed")
        self.configs[name] = {**body, "created_at": now_text()}
        return Answered(self.configs[name])

    def _config(self, asked: Asked) -> Answered:
        name = f"{asked.arguments['namespace']}/{asked.arguments['name']}"
        if name not in self.configs:
            raise Refused(404, f"config '{name}' does not exist")
        return Answered(self.configs[name])

    def _create_job(self, asked: Asked) -> Answered:
        body = checked(*_JOB, asked.json())
        config = self.configs.get(body["config"])
        if config is None:
            raise Refused(404, f"config '{body['config']}' does not exist")
        hyper = body["hyperparameters"]
        kinds = {(option["training_type"], option["finetuning_type"]) for option in config["training_options"]}
        if (hyper.get("training_type"), hyper["finetuning_type"]) not in kinds:
            raise Refused(422, "the configuration has no training option of that training_type and finetuning_type")
        rank = hyper.get("lora", {}).get("adapter_dim", 8)
        if rank < 1 or rank & (rank - 1):
            raise Refused(422, "hyperparameters.lora.adapter_dim: must be a power of 2")
        dataset = self._server.entities.dataset(body["dataset"])
        rows = _rows(self._server.data_store.file(f"{dataset['files_url']}/training/"))
        job_id = f"cust-{uuid.uuid4().hex[:12]}"
        model = body.get("output_model") or f"{body.get('namespace')}/{job_id}"
        model = model if "@" in model else f"{model}@{job_id}"
        base = self.targets[config["target"]]
        job = Job(
            id=job_id,
            body=body,
            model=model,
            created=time.monotonic(),
            lasts_s=self.seconds_of.get(base, self.training_s),
            rows=rows,
            fails=_fault_of(rows) or self.fails.get(base),
            stalls_at=self.stalls_at,
            may_finish=lambda job: self.may_finish(job),
            log=[{"updated_at": now_text(), "message": "TrainingJobCreated", "detail": None}],
        )
        if self.not_enough_resources:
            detail = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            job.stalls_at = 0.0
            job.log.append({"updated_at": now_text(), "message": "NotEnoughResources", "detail": detail})
        self.jobs[job_id] = job
        self._server.entities.models[model] = {
            "name": model.partition("/")[2],
            "namespace": model.partition("/")[0],
            "base_model": base,
            "created_at": now_text(),
        }
        return Answered(self._shown(job))

    def _cancel(self, asked: Asked) -> Answered:
        job = self._find(asked)
        if job.status() not in ("created", "pending", "running"):
            raise Refused(409, f"job {job.id} is {job.status()} and cannot be cancelled")
        job.ended = time.monotonic()
        return Answered(self._shown(job))

    def _shown(self, job: Job) -> Json:
        kept = {name: value for name, value in job.body.items() if name != "name"}
        return {
            **kept,
            "id": job.id,
            "output_model": job.model,
            "status": job.status(),
            "created_at": job.created_at,
            "status_details": self._details(job),
        }

    def _details(self, job: Job) -> Json:
        done, hyper = job.progress(), job.body["hyperparameters"]
        epochs, batch = hyper.get("epochs", 1), hyper.get("batch_size", 8)
        steps = max(1, -(-len(job.rows) // batch)) * epochs
        completed = int(steps * done / 100)
        losses = [
            {"step": step, "timestamp": job.created_at, "value": round(2.0 - 1.5 * step / steps, 6)}
            for step in range(1, completed + 1)
        ]
        val_losses = [losses[0], losses[-1]] if losses else []
        log = list(job.log)
        if job.status() == "failed":
            log.append({"updated_at": now_text(), "message": "Failed", "detail": job.fails})
        return {
            "created_at": job.created_at,
            "updated_at": now_text(),
            "status": job.status(),
            "percentage_done": done,
            "epochs_completed": int(epochs * done / 100),
            "steps_completed": completed,
            "elapsed_time": time.monotonic() - job.created,
            "train_loss": losses[-1]["value"] if losses else None,
            "val_loss": losses[-1]["value"] if losses else None,
            "metrics": {"keys": ["train_loss", "val_loss"], "metrics": {"train_loss": losses, "val_loss": val_losses}},
            "status_logs": log,
        }

    def _find(self, asked: Asked) -> Job:
        if asked.arguments["id"] not in self.jobs:
            raise Refused(404, f"job {asked.arguments['id']} not found")
        return self.jobs[asked.arguments["id"]]


def _rows(content: bytes) -> list[Json]:
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _fault_of(rows: list[Json]) -> str | None:
    """Why the Customizer's data loader would refuse these rows: the service notices in the job, not when it is asked."""
    for number, row in enumerate(rows, 1):
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            return f"training row {number} has no `messages`"
        if messages[-1].get("role") != "assistant":
            return f"training row {number} does not end with the assistant"
        if not isinstance(row.get("tools", []), list):
            return f"training row {number}: `tools` is no list"
        for call in (call for message in messages for call in message.get("tool_calls") or ()):
            if not isinstance(call["function"]["arguments"], dict | str):
                return f"training row {number}: arguments of a tool call are neither an object nor text"
    return None if rows else "the dataset has no training rows"
