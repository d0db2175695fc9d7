"""Deployment Management and the NIM proxy of the test server: GPUs, readiness, which models are served, and chat."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nemo_microservices.types.deployment import ModelDeploymentCreateParams

from tests.fakes import completion
from tests.nemo.wire import Answered, Asked, Json, Refused, Routes, checked, now_text, page, parameters

if TYPE_CHECKING:
    from tests.nemo.server import NemoServer

_CREATE = parameters(ModelDeploymentCreateParams)
_PATH = "/v1/deployment/model-deployments"


@dataclass
class Deployed:
    """One model deployment; `started` is when it got its GPUs (None: it waits for them), `adapters` when each synced."""

    body: Json
    created: float
    started: float | None = None
    adapters: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return str(self.body["config"]["model"])

    @property
    def gpus(self) -> int:
        return int(self.body["config"]["nim_deployment"]["gpu"])


class Deployments:
    """`gpus` is the cluster's; a deployment that does not fit stays pending until others are deleted."""

    def __init__(self, server: NemoServer) -> None:
        self._server = server
        self.gpus = 8
        self.deploy_s = 0.0
        self.sync_s = 0.0
        self.never_ready: set[str] = set()
        self.fails: dict[str, str] = {}
        self.duplicate_status = 409
        self.by_name: dict[str, Deployed] = {}
        self.standing_models: set[str] = set()
        self.most_gpus = 0
        self.chats: list[Json] = []

    def routes(self, routes: Routes) -> None:
        routes.add("POST", _PATH, self._create)
        routes.add("GET", _PATH, lambda asked: Answered(page([self._shown(one) for one in self.by_name.values()], asked)))
        routes.add("GET", f"{_PATH}/{{namespace}}/{{name}}", lambda asked: Answered(self._shown(self._find(asked))))
        routes.add("DELETE", f"{_PATH}/{{namespace}}/{{name}}", self._delete)

    def proxy_routes(self, routes: Routes) -> None:
        routes.add("GET", "/v1/models", self._models)
        routes.add("GET", "/v1/health/ready", lambda asked: Answered({"object": "health-response", "message": "ready"}))
        routes.add("GET", "/v1/version", lambda asked: Answered({"release": "1.8.3", "api": "1.0.0"}))
        routes.add("POST", "/v1/chat/completions", lambda asked: Answered(self.chat(asked.json())))

    def served(self) -> list[str]:
        """The models that answer now: bases of ready deployments, and their adapters once synced."""
        now = time.monotonic()
        names = list(self.standing_models)
        for one in self.by_name.values():
            if self._status(one) == "ready":
                names.append(one.model)
                self._sync(one, now)
                names += [name for name, at in one.adapters.items() if now >= at]
        return names

    def chat(self, body: Json) -> Json:
        """One chat completion by a model that is served; 404 for any other."""
        if body.get("model") not in self.served():
            raise Refused(404, f"The model `{body.get('model')}` does not exist.")
        if not body.get("messages"):
            raise Refused(422, "messages: field required")
        self.chats.append(body)
        time.sleep(self._server.answer_s)
        return completion(self._server.answer(body), body["model"])

    def _create(self, asked: Asked) -> Answered:
        body = checked(*_CREATE, asked.json())
        self._server.entities.require_namespace(body.get("namespace"))
        if not isinstance(body["config"], dict) or not body["config"].get("nim_deployment"):
            raise Refused(422, "config.nim_deployment is required")
        name = f"{body['namespace']}/{body['name']}"
        if name in self.by_name:
            raise Refused(self.duplicate_status, "model deployment already exists")
        self.by_name[name] = Deployed(body, time.monotonic())
        self._schedule()
        return Answered(self._shown(self.by_name[name]))

    def _delete(self, asked: Asked) -> Answered:
        one = self._find(asked)
        del self.by_name[f"{one.body['namespace']}/{one.body['name']}"]
        self._schedule()
        return Answered({"message": "Resource deleted successfully.", "id": one.body["name"], "deleted_at": now_text()})

    def _schedule(self) -> None:
        used = sum(one.gpus for one in self.by_name.values() if one.started is not None)
        for one in sorted(self.by_name.values(), key=lambda each: each.created):
            if one.started is None and used + one.gpus <= self.gpus:
                one.started = time.monotonic()
                used += one.gpus
        self.most_gpus = max(self.most_gpus, used)

    def _status(self, one: Deployed) -> str:
        if one.body["name"] in self.fails:
            return "failed"
        if one.started is None or one.body["name"] in self.never_ready:
            return "pending"
        return "ready" if time.monotonic() - one.started >= self.deploy_s else "pending"

    def _sync(self, one: Deployed, now: float) -> None:
        for name, finished in self._server.customizer.finished_adapters(one.model).items():
            one.adapters.setdefault(name, max(now, finished) + self.sync_s if self.sync_s else finished)

    def _shown(self, one: Deployed) -> Json:
        status = self._status(one)
        why = "waiting for GPUs" if one.started is None else f"deployment is {status}"
        reason = self.fails.get(one.body["name"]) or why
        shown: Json = {**one.body, "created_at": now_text(), "deployed": status == "ready", "url": ""}
        if status == "ready":
            shown["url"] = f"http://{one.body['name']}.nim.internal:8000"
        return {**shown, "status_details": {"status": status, "description": reason}}

    def _find(self, asked: Asked) -> Deployed:
        name = f"{asked.arguments['namespace']}/{asked.arguments['name']}"
        if name not in self.by_name:
            raise Refused(404, f"model deployment {name} not found")
        return self.by_name[name]

    def _models(self, asked: Asked) -> Answered:
        entries: list[dict[str, Any]] = [
            {"id": name, "object": "model", "created": 0, "owned_by": "system"} for name in self.served()
        ]
        return Answered({"object": "list", "data": entries})
