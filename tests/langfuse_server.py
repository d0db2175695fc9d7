"""A Langfuse of our own for tests: the part of the public API that tracing and reading need, in memory, on a real socket.

It agrees with `tests/fixtures/langfuse_wire.jsonl`, exchanges recorded between SDK 5.0.4 and a running 4.16 server (a test
replays them), takes OTLP from the official SDK, and fails on demand. Datasets and experiments are in `langfuse_datasets`.
Prompts and metrics it does not speak (501).
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.langfuse_datasets import Datasets
from tests.langfuse_otlp import PROJECT, Json, experiment_spans_of, observations_of

PUBLIC_KEY, SECRET_KEY = "pk-lf-test", "sk-lf-test-secret"
METADATA_SHOWN = 200

_GROUPS: dict[str, tuple[str, ...]] = {
    "core": ("id", "traceId", "startTime", "endTime", "projectId", "parentObservationId", "type"),
    "basic": (
        *("name", "level", "statusMessage", "version", "environment"),
        *("userId", "sessionId", "isRootObservation", "bookmarked", "public"),
    ),
    "time": ("completionStartTime", "createdAt", "updatedAt"),
    "io": ("input", "output"),
    "metadata": ("metadata",),
    "model": ("model", "internalModelId", "modelParameters"),
    "usage": (
        *("usageDetails", "inputUsage", "outputUsage", "totalUsage", "usagePricingTierId", "usagePricingTierName"),
        *("costDetails", "inputCost", "outputCost", "totalCost"),
    ),
    "prompt": ("promptId", "promptName", "promptVersion"),
    "metrics": (),
    "trace_context": ("traceName", "release", "tags"),
}
_ALWAYS = ("latency", "timeToFirstToken", "modelId", "inputPrice", "outputPrice", "totalPrice")
_GONE = (
    "This endpoint is not available on deployments running in Langfuse v4 events_only mode. "
    "Learn more about Langfuse v4 at: https://langfuse.com/docs/v4"
)
_SCORE_CORE = (
    *("id", "projectId", "name", "source", "timestamp", "environment"),
    *("createdAt", "updatedAt", "dataType", "value"),
)


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong: a status, a late answer, or a cut connection. `path` limits it to some requests."""

    status: int = 500
    retry_after: str | None = None
    delay_s: float = 0.0
    cut: bool = False
    path: str = ""


@dataclass
class LangfuseServer:
    """One project. `faults` are used up, one a matching request; `held` keeps back what arrives until `release()`;
    `repeat_rows` begins every page with that many rows of the one before; `calls` are the paths asked for, in order,
    `bodies` what was posted. `takes_events` is whether SDK 4's way of sending scores is still there."""

    version: str = "5.2.0"
    repeat_rows: int = 0
    held: bool = False
    port: int = 0
    faults: deque[Fault] = field(default_factory=deque)
    calls: list[str] = field(default_factory=list)
    observations: dict[str, Json] = field(default_factory=dict)
    scores: dict[str, Json] = field(default_factory=dict)
    refused_scores: int = 0
    takes_events: bool = True
    bodies: list[bytes] = field(default_factory=list)
    datasets: Datasets = field(default_factory=Datasets)
    before_page: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: list[Json] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its base URL, as LANGFUSE_BASE_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead to it."""
        return {"LANGFUSE_BASE_URL": self.url, "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY, "LANGFUSE_SECRET_KEY": SECRET_KEY}

    def __enter__(self) -> LangfuseServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same port as before, if there was one. What it holds stays."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double._take(self, b"")

            def do_POST(self) -> None:
                double._take(self, self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def do_DELETE(self) -> None:
                double._take(self, b"")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def add(self, *rows: Json) -> None:
        """Observations as if they had been traced."""
        with self._lock:
            if self.held:
                self._waiting += rows
            else:
                self.observations |= {row["id"]: row for row in rows}

    def release(self) -> None:
        """What was held back arrives now, late."""
        with self._lock:
            self.held = False
            self.add(*self._waiting)
            self._waiting = []

    def score(self, name: str, value: Any, *, trace_id: str, observation_id: str | None = None, **more: Any) -> Json:
        """A score as if it had been sent by an API call."""
        kind = {bool: "BOOLEAN", str: "CATEGORICAL"}.get(type(value), "NUMERIC")
        body = {"name": name, "value": value, "traceId": trace_id, "observationId": observation_id, "dataType": kind, **more}
        return self._store_score(body)

    def _take(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        url = urlsplit(request.path)
        query = parse_qs(url.query, keep_blank_values=True)
        with self._lock:
            self.calls.append(request.path)
            fault = next((fault for fault in self.faults if fault.path in request.path), None)
            if fault is not None:
                self.faults.remove(fault)
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.cut:
                request.connection.close()
                return
            if fault.status != 200:
                _send(request, fault.status, {"message": f"fault {fault.status}"}, fault.retry_after)
                return
        if request.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        if url.path not in ("/api/public/health", "/api/public/ready") and not _knows(request):
            _send(
                request,
                401,
                {"error": "UnauthorizedError", "message": "Invalid credentials"},
            )
            return
        with self._lock:
            self.bodies.append(body)
            status, answer = self.answer(request.command, url.path, query, body)
        _send(request, status, answer)

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Json]:
        """Status and content for one request."""
        if (method, path) == ("POST", "/api/public/otel/v1/traces"):
            self.add(*observations_of(body))
            self.datasets.saw(experiment_spans_of(body))
            return 200, _job()
        if (method, path) == ("POST", "/api/public/scores"):
            return self._post_scores(json.loads(body))
        if (method, path) == ("POST", "/api/public/ingestion") and self.takes_events:
            return self._post_events(json.loads(body))
        if path.startswith(self.datasets.paths):
            return self.datasets.answer(method, unquote(path), query, json.loads(body) if body else None)
        if path in ("/api/public/health", "/api/public/ready"):
            return 200, {"status": "OK", "version": self.version}
        if path == "/api/public/projects":
            project = {"id": PROJECT, "name": "Proj", "organization": {"id": "org1", "name": "Org"}, "metadata": {}}
            return 200, {"data": [project]}
        if path == "/api/public/v2/observations":
            self.before_page()
            return self._get_observations(query)
        if path == "/api/public/v3/scores":
            return self._get_scores(query)
        if path in ("/api/public/traces", "/api/public/observations", "/api/public/sessions"):
            return 404, {"message": _GONE}
        return 501, {"message": f"the test server does not speak {path}"}

    def _get_observations(self, query: dict[str, list[str]]) -> tuple[int, Json]:
        one = {name: values[-1] for name, values in query.items()}
        limit = int(one.get("limit", 50))
        if limit > 1000:
            return _invalid_limit(1000)
        if one.get("parseIoAsJson") == "true":
            return 400, {"message": "parseIoAsJson=true is not supported any more", "error": "InvalidRequestError"}
        rows = [row for row in self.observations.values() if _matches(row, query)]
        rows.sort(key=_order, reverse=True)
        begin = 0
        if cursor := one.get("cursor"):
            after = _decoded(cursor)
            begin = next((n for n, row in enumerate(rows) if _order(row) < after), len(rows))
            begin = max(0, begin - self.repeat_rows)
        page = rows[begin : begin + limit + (self.repeat_rows if begin else 0)]
        groups = one.get("fields", "core,basic").split(",")
        expanded = one.get("expandMetadata", "").split(",")
        more = rows.index(page[-1]) + 1 < len(rows) if page else False
        meta = {"cursor": _encoded(_order(page[-1]))} if more else {}
        return 200, {"data": [_shown(row, groups, expanded) for row in page], "meta": meta}

    def _post_scores(self, content: Any) -> tuple[int, Json]:
        old = tuple(int(part) for part in self.version.split(".")[:2]) <= (4, 16)
        if isinstance(content, list) and old:
            self.refused_scores += len(content)
            problem = {"path": [], "message": "Invalid input: expected object, received array"}
            fault = {"expected": "object", "code": "invalid_type", **problem}
            return 400, {"message": "Invalid request data", "error": [fault, fault]}
        stored = [self._store_score(score) for score in (content if isinstance(content, list) else [content])]
        return (202, {"message": "Accepted"}) if isinstance(content, list) else (200, {"id": stored[0]["id"]})

    def _post_events(self, content: Json) -> tuple[int, Json]:
        """As SDK 4 posts scores, and as the recorded server has taken them from it (two stand in the recording)."""
        for event in content["batch"]:
            assert event["type"] == "score-create"
            self._store_score(event["body"])
        return 207, {"successes": [{"id": event["id"], "status": 201} for event in content["batch"]], "errors": []}

    def _store_score(self, body: Json) -> Json:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        score = {"id": f"score-{len(self.scores)}", "timestamp": now, "environment": "default", "source": "API"} | {
            k: v for k, v in body.items() if v is not None
        }
        score |= {"projectId": PROJECT, "createdAt": now, "updatedAt": now}
        score.setdefault("dataType", "NUMERIC" if isinstance(score.get("value"), int | float) else "CATEGORICAL")
        if score["dataType"] == "BOOLEAN":
            score["value"] = bool(score["value"])
        with self._lock:
            self.scores[score["id"]] = score
        return score

    def _get_scores(self, query: dict[str, list[str]]) -> tuple[int, Json]:
        one = {name: values[-1] for name, values in query.items()}
        limit = int(one.get("limit", 50))
        if limit > 100:
            return _invalid_limit(100)
        found = [score for score in self.scores.values() if _score_matches(score, one)]
        found.sort(key=lambda score: (score["timestamp"], score["id"]), reverse=True)
        begin = int(base64.urlsafe_b64decode(one["cursor"])) if "cursor" in one else 0
        meta: Json = {"limit": limit}
        if begin + limit < len(found):
            meta["cursor"] = base64.urlsafe_b64encode(str(begin + limit).encode()).decode()
        fields = one.get("fields", "").split(",")
        return 200, {"data": [_shown_score(score, fields) for score in found[begin : begin + limit]], "meta": meta}


def _knows(request: BaseHTTPRequestHandler) -> bool:
    keys = base64.b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()
    return request.headers["Authorization"] == f"Basic {keys}"


def _matches(row: Json, query: dict[str, list[str]]) -> bool:
    conditions = json.loads(query["filter"][-1]) if "filter" in query else []
    if conditions:
        # As the product does: a filter takes the place of every other parameter.
        return all(_meets(row, condition) for condition in conditions)
    one = {name: values[-1] for name, values in query.items()}
    if any(name in one and row[name] != one[name] for name in ("type", "traceId", "name", "userId", "sessionId", "level")):
        return False
    if "environment" in query and row["environment"] not in query["environment"]:
        return False
    start = _moment(row["startTime"])
    if "fromStartTime" in one and start < _moment(one["fromStartTime"]):
        return False
    return not ("toStartTime" in one and start >= _moment(one["toStartTime"]))


def _meets(row: Json, condition: Json) -> bool:
    if condition["type"] == "datetime":
        first, second = _moment(row[condition["column"]]), _moment(condition["value"])
        return first >= second if condition["operator"] == ">=" else first < second
    if condition["type"] == "arrayOptions":
        return bool(set(row["tags"]) & set(condition["value"]))
    return bool(row["metadata"].get(condition["key"]) == condition["value"])


def _score_matches(score: Json, one: dict[str, str]) -> bool:
    lists = {"name": "name", "traceId": "traceId", "observationId": "observationId", "dataType": "dataType", "id": "id"}
    if any(parameter in one and score.get(key) not in one[parameter].split(",") for parameter, key in lists.items()):
        return False
    moment = _moment(score["timestamp"])
    if "fromTimestamp" in one and moment < _moment(one["fromTimestamp"]):
        return False
    return not ("toTimestamp" in one and moment >= _moment(one["toTimestamp"]))


def _shown(row: Json, groups: list[str], expanded: list[str]) -> Json:
    names = [name for group in ("core", *groups) for name in _GROUPS.get(group, ())]
    shown = {name: row.get(name) for name in (*dict.fromkeys(names), *_ALWAYS)}
    if "metrics" not in groups:
        shown["latency"] = row.get("latency") or 0
    if "metadata" in shown:
        shown["metadata"] = {k: v if k in expanded else _cut(v) for k, v in (shown["metadata"] or {}).items()}
    return shown


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:METADATA_SHOWN] if len(text) > METADATA_SHOWN else value


def _shown_score(score: Json, fields: list[str]) -> Json:
    shown = {name: score[name] for name in _SCORE_CORE}
    if "details" in fields:
        shown |= {"comment": score.get("comment"), "configId": None, "metadata": score.get("metadata") or {}}
    if "subject" in fields:
        if score.get("observationId"):
            shown["subject"] = {"kind": "observation", "id": score["observationId"], "traceId": score.get("traceId")}
        elif score.get("traceId"):
            shown["subject"] = {"kind": "trace", "id": score["traceId"]}
        elif score.get("datasetRunId"):
            shown["subject"] = {"kind": "experiment", "id": score["datasetRunId"]}
        else:
            shown["subject"] = {"kind": "session", "id": score.get("sessionId", "s")}
    return shown


def _order(row: Json) -> tuple[str, str, str]:
    return row["startTime"], row["traceId"], row["id"]


def _encoded(place: tuple[str, str, str]) -> str:
    content = dict(zip(("lastStartTimeTo", "lastTraceId", "lastId"), place, strict=True))
    return base64.b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()


def _decoded(cursor: str) -> tuple[str, str, str]:
    content = json.loads(base64.b64decode(cursor))
    return content["lastStartTimeTo"], content["lastTraceId"], content["lastId"]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _invalid_limit(maximum: int) -> tuple[int, Json]:
    fault: Json = {"origin": "number", "code": "too_big", "maximum": maximum, "inclusive": True, "path": ["limit"]}
    fault["message"] = f"Too big: expected number to be <={maximum}"
    return 400, {"message": "Invalid request data", "error": [fault]}


def _job() -> Json:
    """What the recorded server answers to spans: the job it queued."""
    key = {"publicKey": PUBLIC_KEY, "fileKey": "events/otel/proj1/job.json"}
    scope = {"projectId": PROJECT, "accessLevel": "project", "orgId": "org1"}
    payload = {"data": key, "authCheck": {"validKey": True, "scope": scope}, "sdkName": "python"}
    payload |= {"sdkVersion": "5.0.4", "ingestionVersion": "4"}
    data = {"id": "job", "timestamp": "2026-01-01T00:00:00.000Z", "name": "otel-ingestion-job", "payload": payload}
    backoff = {"type": "exponential", "delay": 5000}
    opts: Json = {"attempts": 6, "removeOnComplete": True, "removeOnFail": 100000, "backoff": backoff}
    opts |= {"traceparent": "", "baggage": ""}
    job = {"name": "otel-ingestion-job", "data": data, "opts": opts, "id": "1", "progress": 0, "returnvalue": None}
    job |= {"stacktrace": None, "priority": 0, "attemptsStarted": 0, "attemptsMade": 0, "stalledCounter": 0, "timestamp": 0}
    return {**job, "queueQualifiedName": "bull:otel-ingestion-queue"}


def _send(request: BaseHTTPRequestHandler, status: int, content: Json, retry_after: str | None = None) -> None:
    body = json.dumps(content).encode()
    try:
        request.send_response(status)
        request.send_header("Content-Type", "application/json; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            request.send_header("Retry-After", retry_after)
        request.end_headers()
        request.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # The client has given up, as tests of time-outs want it to.
