"""Evaluator: eval rows put to a model by a job, its answers row by row, and NeMo's own scores beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from nemo_microservices.types import EvaluationResult
from nemo_microservices.types.evaluation import EvaluationJob

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.nemo.errors import JobStalled, NemoUnauthorized
from flywheel_assets.resources.nemo.ledger import Ledger
from flywheel_assets.resources.nemo.polling import Stall, looks
from flywheel_assets.resources.nemo.v1 import eval_configs
from flywheel_assets.resources.nemo.v1.connection import Connection
from flywheel_assets.resources.nemo.v1.datastore import Datastore
from flywheel_assets.resources.nemo.v1.jobs import DONE, Jobs
from flywheel_assets.resources.nemo.v1.rows import EVAL_FILE, eval_file, eval_groups, read_predictions
from flywheel_assets.resources.nemo.work import Evaluated, EvaluationOrder, Say
from flywheel_assets.settings import NemoSettings

_LISTED = 100
Progress = Callable[[int], None]
"""Called with the number of rows that are done."""


class Evaluator:
    """Evaluation jobs of one namespace."""

    def __init__(self, connection: Connection, datastore: Datastore, ledger: Ledger, home: str) -> None:
        self._connection, self._datastore = connection, datastore
        self.jobs: Jobs[EvaluationJob] = Jobs(
            "evaluation",
            connection,
            ledger,
            home,
            retrieve=lambda job: connection.api.evaluation.jobs.retrieve(job),
            listed=self._listed,
            cancel=lambda job: connection.api.evaluation.jobs.cancel(job),
        )

    def evaluate(self, order: EvaluationOrder, progress: Progress, say: Say) -> Evaluated:
        """Have the rows answered and scored; takes minutes. Raises JobFailed, JobStalled, NemoError."""
        config = self.config(order)
        target = eval_configs.evaluation_target(self._connection.settings.nim_url, order.model)
        inputs = _hash({"config": config, "target": target, "identity": order.identity})

        def create() -> EvaluationJob:
            body: Any = {"config": _with_keys(config, self._connection.settings), "target": target}
            marks: dict[str, object] = {**self.jobs.marks(inputs, order.owner)}
            return self._connection.api.evaluation.jobs.create(
                **body, namespace=self._datastore.namespace, custom_fields=marks
            )

        with self.jobs.owned(inputs, order.owner, create, say) as job:
            assert job.id is not None
            self._await(job.id, progress)
            name = job.id
            results = self._connection.do(
                f"results of evaluation job {name}", lambda: self._connection.api.evaluation.jobs.results(name)
            )
            archive = self._connection.do(
                f"rows of evaluation job {name}",
                lambda: self._connection.api.evaluation.jobs.download_results(name).read(),
            )
        return Evaluated(name, read_predictions(archive, order.rows, name), scores_of(results))

    def config(self, order: EvaluationOrder) -> Json:
        """The configuration of an order, its rows published; without any key."""
        tasks: Json = {}
        calls_tools = any(row.request.get("tools") for row in order.rows)
        for number, (has_tools, choice, items) in enumerate(eval_groups(order.rows, order.prefix), 1):
            dataset = self._datastore.publish("eval", {EVAL_FILE: eval_file(items)})
            url = self._datastore.url(dataset, EVAL_FILE)
            suffix = "" if number == 1 else f"-{number}"
            if not calls_tools:
                tasks[eval_configs.GENERIC_TASK + suffix] = eval_configs.generic_task(url)
            elif order.judged:
                judge = judge_endpoint(self._connection.settings)
                tasks[eval_configs.JUDGE_TASK + suffix] = eval_configs.judged_task(
                    url, has_tools=has_tools, tool_choice=choice, judge=judge
                )
            else:
                tasks[eval_configs.TOOL_TASK + suffix] = eval_configs.tool_task(url, has_tools=has_tools, tool_choice=choice)
        return eval_configs.evaluation_config(tasks)

    def _listed(self) -> Iterator[EvaluationJob]:
        namespace = self._datastore.namespace
        return iter(self._connection.api.evaluation.jobs.list(filter={"namespace": namespace}, page_size=_LISTED))

    def _await(self, job: str, progress: Progress) -> None:
        settings = self._connection.settings
        stall = Stall()
        for _ in looks(settings.poll_longest_s):
            found = self.jobs.retrieve(job)
            details = found.status_details
            if found.status in DONE:
                return
            said = (details.message if details else None) or "no reason given"
            if found.status in ("failed", "cancelled", "cancelling"):
                raise self.jobs.failed(job, f"is {found.status}: {said}")
            samples = (details.samples_processed if details else None) or 0
            stall.note((found.status, samples, details.progress if details else None))
            progress(samples)
            if stall.for_s >= 60 * settings.stall_timeout_minutes:
                raise JobStalled(
                    f"evaluation job {job} made no progress for {settings.stall_timeout_minutes:g} minutes ({said}). "
                    "`nemo.stall_timeout_minutes` says how long to wait."
                )


def judge_endpoint(settings: NemoSettings) -> Json:
    """The judge as a job names it, without its key."""
    judge = settings.judge
    if judge is None:
        raise NemoUnauthorized("tool calls are to be judged, but `nemo.judge` names nobody. Add it to flywheel.yaml.")
    if judge.type == "local":
        return eval_configs.model_endpoint(settings.nim_url, judge.model_name)
    return {"api_endpoint": {"url": judge.url, "model_id": judge.model_name}}


def scores_of(results: EvaluationResult) -> dict[str, float]:
    """Every score of every metric, by `task.metric.score`."""
    return {
        f"{task}.{metric}.{name}": score.value
        for task, result in (results.tasks or {}).items()
        for metric, scored in (result.metrics or {}).items()
        for name, score in (scored.scores or {}).items()
    }


def _with_keys(config: Json, settings: NemoSettings) -> Json:
    """The configuration as it is sent: only there does the judge's key stand, never in what is kept or shown."""
    variable = settings.judge.api_key_env if settings.judge is not None else None
    if variable is None:
        return config
    key = os.environ.get(variable)
    sent: Json = orjson.loads(orjson.dumps(config))
    for task in sent["tasks"].values():
        for metric in task["metrics"].values():
            if metric["type"] == "llm-judge" and "api_endpoint" in metric["params"]["model"]:
                if not key:
                    raise NemoUnauthorized(f"The environment variable {variable} (nemo.judge.api_key_env) is not set.")
                metric["params"]["model"]["api_endpoint"]["api_key"] = key
    return sent


def _hash(content: Json) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
