"""Evaluator of the NeMo test server: renders the templates of a job, asks the model, scores each row, and packs the rows.

Its metrics are written down here a second time, from their published definition, and share nothing with the package's.
"""

from __future__ import annotations

import collections
import io
import json
import re
import string
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import jinja2
from nemo_microservices.types.evaluation import JobCreateParams

from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, checked, now_text, page, parameters

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer

_JOB = parameters(JobCreateParams)
_JOBS = "/v1/evaluation/jobs"


@dataclass
class Job:
    """One evaluation job: it takes `lasts_s`, and answers its rows when that time is over (or when it is looked at then)."""

    id: str
    body: Json
    created: float
    lasts_s: float
    fails: str | None = None
    stalls: bool = False
    cancelled: bool = False
    rows: dict[str, list[Json]] | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    created_at: str = field(default_factory=now_text)

    def due(self) -> bool:
        return not self.stalls and time.monotonic() - self.created >= self.lasts_s


class Evaluator:
    """Answers are greedy here, so that tests can compare them; the product's own default is not known to be."""

    def __init__(self, server: NemoServer) -> None:
        self._server = server
        self.jobs: dict[str, Job] = {}
        self.evaluation_s = 0.0
        self.fails: str | None = None
        self.stalls = False
        self.loses_rows = 0
        self._templates = jinja2.Environment()

    def routes(self, routes: Routes) -> None:
        routes.add("POST", _JOBS, self._create)
        routes.add("GET", _JOBS, lambda asked: Answered(page([self._shown(job) for job in self._newest_first()], asked)))
        routes.add("GET", f"{_JOBS}/{{id}}", lambda asked: Answered(self._shown(self._find(asked))))
        routes.add("GET", f"{_JOBS}/{{id}}/status", lambda asked: Answered(self._details(self._find(asked))))
        routes.add("GET", f"{_JOBS}/{{id}}/results", self._results)
        routes.add("GET", f"{_JOBS}/{{id}}/download-results", self._download)
        routes.add("POST", f"{_JOBS}/{{id}}/cancel", self._cancel)
        routes.add("DELETE", f"{_JOBS}/{{id}}", self._delete)

    def alive(self) -> list[Job]:
        """Jobs that still cost something."""
        return [job for job in self.jobs.values() if self.status(job) in ("created", "running")]

    def status(self, job: Job) -> str:
        if job.cancelled:
            return "cancelled"
        if not job.due():
            return "running"
        if job.fails is None and job.rows is None:
            try:
                self._run(job)
            except Refused as refused:
                job.fails = str(refused.detail)
        return "failed" if job.fails else "completed"

    def _newest_first(self) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: job.created, reverse=True)

    def _create(self, asked: Asked) -> Answered:
        body = checked(*_JOB, asked.json())
        config, target = body["config"], body["target"]
        if config.get("type") != "custom" or not config.get("tasks"):
            raise Refused(422, "config: type `custom` with `tasks` is what is spoken here")
        for task in config["tasks"].values():
            dataset = task.get("dataset")
            url = dataset["files_url"] if isinstance(dataset, dict) else dataset
            self._server.data_store.file(str(url))
            if task["type"] != "chat-completion" or "template" not in task.get("params", {}):
                raise Refused(422, "tasks: a chat-completion with params.template is what is spoken here")
        if target.get("type") != "model" or "api_endpoint" not in target.get("model", {}):
            raise Refused(422, "target: a model with an api_endpoint is what is spoken here")
        job = Job(f"eval-{uuid.uuid4().hex[:12]}", body, time.monotonic(), self.evaluation_s, self.fails, self.stalls)
        self.jobs[job.id] = job
        return Answered(self._shown(job))

    def _run(self, job: Job) -> None:
        """Ask the model every row of every task, and score it."""
        model = job.body["target"]["model"]["api_endpoint"]["model_id"]
        job.rows, tasks = {}, {}
        for name, task in job.body["config"]["tasks"].items():
            dataset = task["dataset"]
            url = dataset["files_url"] if isinstance(dataset, dict) else dataset
            lines = self._server.data_store.file(url).splitlines()
            items = [json.loads(line) for line in lines if line.strip()]
            limit = dataset.get("limit") if isinstance(dataset, dict) else None
            rows = [self._row(item, task, model) for item in items[:limit]]
            job.rows[name] = rows
            means = {metric: _mean_scores([row["metrics"][metric] for row in rows]) for metric in task["metrics"]}
            tasks[name] = {"metrics": means}
        job.scores = tasks

    def _row(self, item: Json, task: Json, model: str) -> Json:
        request = self._rendered(task["params"]["template"], item=item)
        try:
            response = self._server.deployments.chat({**request, "model": model, "temperature": 0})
        except Refused as refused:
            if refused.status == 404:
                raise
            return {"item": item, "sample": {"error": str(refused.detail)}, "metrics": {m: {} for m in task["metrics"]}}
        message = response["choices"][0]["message"]
        sample = {"output_text": message.get("content") or "", "response": response}
        metrics = {name: self._score(metric, item, sample) for name, metric in task["metrics"].items()}
        return {"item": item, "sample": sample, "metrics": metrics}

    def _score(self, metric: Json, item: Json, sample: Json) -> dict[str, float | None]:
        params = metric["params"]
        if metric["type"] == "f1":
            truth = self._text(params["ground_truth"], item=item, sample=sample)
            return {"f1_score": _f1(truth, sample["output_text"])}
        if metric["type"] == "tool-calling":
            truth = json.loads(self._text(params["tool_calls_ground_truth"], item=item, sample=sample)) or []
            return _tool_calling(truth, sample["response"]["choices"][0]["message"].get("tool_calls") or [])
        if metric["type"] == "llm-judge":
            asked = self._rendered(params["template"], item=item, sample=sample)
            said = self._server.judge(asked)
            return {
                name: float(found.group(1)) if (found := re.search(score["parser"]["pattern"], said)) else None
                for name, score in params["scores"].items()
            }
        raise Refused(422, f"unknown metric type {metric['type']}")

    def _rendered(self, template: Any, **values: Any) -> Any:
        """A request template with its texts rendered; a text that is one expression gives the JSON it renders to."""
        if isinstance(template, dict):
            return {key: self._rendered(value, **values) for key, value in template.items()}
        if isinstance(template, list):
            return [self._rendered(value, **values) for value in template]
        if not isinstance(template, str) or "{{" not in template:
            return template
        text = self._text(template, **values)
        return json.loads(text) if template.strip().endswith("tojson }}") or "tojson}}" in template else text

    def _text(self, template: str, **values: Any) -> str:
        try:
            return self._templates.from_string(template).render(**values)
        except (jinja2.TemplateError, TypeError) as error:
            raise Refused(422, f"template {template}: {error}") from None

    def _results(self, asked: Asked) -> Answered:
        job = self._find(asked)
        if self.status(job) != "completed":
            raise Refused(404, f"job {job.id} has no results; it is {self.status(job)}")
        return Answered({"id": f"result-{job.id}", "job": job.id, "tasks": job.scores, "created_at": now_text()})

    def _download(self, asked: Asked) -> Answered:
        job = self._find(asked)
        if self.status(job) != "completed" or job.rows is None:
            raise Refused(404, f"job {job.id} has no results; it is {self.status(job)}")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("job.json", json.dumps({"id": job.id, "config": job.body["config"]}))
            for task, rows in job.rows.items():
                kept = rows[self.loses_rows :]
                archive.writestr(f"results/{task}/rows.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        return Answered(packed.getvalue())

    def _cancel(self, asked: Asked) -> Answered:
        job = self._find(asked)
        if self.status(job) not in ("created", "running"):
            raise Refused(409, f"job {job.id} is {self.status(job)} and cannot be cancelled")
        job.cancelled = True
        return Answered({"message": "Evaluation job cancelled"})

    def _delete(self, asked: Asked) -> Answered:
        del self.jobs[self._find(asked).id]
        return Answered(None, 204)

    def _shown(self, job: Job) -> Json:
        return {
            **job.body,
            "id": job.id,
            "status": self.status(job),
            "status_details": self._details(job),
            "created_at": job.created_at,
        }

    def _details(self, job: Job) -> Json:
        status = self.status(job)
        tasks = dict.fromkeys(job.body["config"]["tasks"], "failed" if status == "failed" else "running")
        done = 100.0 if status == "completed" else 0.0
        return {"message": job.fails or status, "progress": done, "task_status": tasks}

    def _find(self, asked: Asked) -> Job:
        if asked.arguments["id"] not in self.jobs:
            raise Refused(404, f"job {asked.arguments['id']} not found")
        return self.jobs[asked.arguments["id"]]


def _mean_scores(rows: list[dict[str, float | None]]) -> Json:
    names = {name for row in rows for name in row}
    scores = {}
    for name in sorted(names):
        values = [value for row in rows if (value := row.get(name)) is not None]
        if values:
            stats = {"count": len(values), "nan_count": len(rows) - len(values), "mean": fmean(values)}
            scores[name] = {"value": fmean(values), "stats": stats}
    return {"scores": scores}


def _words(text: str) -> list[str]:
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _f1(truth: str, said: str) -> float:
    wanted, given = _words(truth), _words(said)
    if not wanted or not given:
        return float(wanted == given)
    common = sum((collections.Counter(wanted) & collections.Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


def _tool_calling(truth: list[Json], said: list[Json]) -> dict[str, float | None]:
    def arguments(call: Json) -> Any:
        value = call["function"]["arguments"]
        return json.loads(value) if isinstance(value, str) else value

    names = {call["function"]["name"] for call in truth} == {call["function"]["name"] for call in said}
    try:
        expected = {call["function"]["name"]: arguments(call) for call in truth}
        given = {call["function"]["name"]: arguments(call) for call in said}
    except ValueError:
        return {"function_name_accuracy": float(names), "function_name_and_args_accuracy": None}
    return {"function_name_accuracy": float(names), "function_name_and_args_accuracy": float(names and expected == given)}
