"""A NeMo Microservices of our own for tests: the part of the v1 API that the reference workflow needs, with state.

Three addresses, as there are in a cluster: the platform (Entity Store, Customizer, Evaluator, Deployment Management), the
Data Store and the NIM proxy. Every request body is validated with the SDK's own parameter types and unknown fields are
refused; every request is recorded with its time. Knobs stand on the services (`customizer.training_s`,
`deployments.never_ready`, ...), faults in `faults`. What is kept survives `stop()` and `start()`.

It is a double: agreement with it shows that the client speaks the SDK's types and the rules written down here, not that
the product behaves so.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.nemo.customizer import Customizer
from tests.nemo.data_store import DataStore
from tests.nemo.deployments import Deployments
from tests.nemo.entities import EntityStore
from tests.nemo.evaluator import Evaluator
from tests.nemo.wire import Answered, Asked, Call, Fault, Json, Listener, Refused, Routes

NEMO, DATASTORE, NIM = "nemo", "datastore", "nim"


class NemoServer:
    """`answer` makes the assistant message of a chat request; `judge` the text an LLM judge says; `key`, where set, is asked
    for as a bearer token. `answer_s` is what one chat takes."""

    def __init__(self, answer: Callable[[Json], Json] | None = None, key: str | None = None) -> None:
        self.answer = answer or (lambda body: {"role": "assistant", "content": "ok"})
        self.answer_s = 0.0
        self.judge: Callable[[Json], str] = lambda body: "RATING: 1"
        self.key = key
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.entities = EntityStore(self)
        self.data_store = DataStore(self)
        self.customizer = Customizer(self)
        self.evaluator = Evaluator(self)
        self.deployments = Deployments(self)
        self._lock = threading.RLock()
        platform, datastore, proxy = Routes(), Routes(), Routes()
        for service in (self.entities, self.customizer, self.evaluator, self.deployments):
            service.routes(platform)
        self.data_store.routes(datastore)
        self.deployments.proxy_routes(proxy)
        routes = {NEMO: platform, DATASTORE: datastore, NIM: proxy}
        self._listeners = {name: Listener(name, table, self._take) for name, table in routes.items()}

    @property
    def nemo_url(self) -> str:
        return self._listeners[NEMO].url

    @property
    def datastore_url(self) -> str:
        return self._listeners[DATASTORE].url

    @property
    def nim_url(self) -> str:
        return self._listeners[NIM].url

    @property
    def settings(self) -> Json:
        """The `nemo:` block of a flywheel.yaml that leads here."""
        return {"base_url": self.nemo_url, "datastore_url": self.datastore_url, "nim_url": self.nim_url}

    def __enter__(self) -> NemoServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same ports as before, if there were any."""
        for listener in self._listeners.values():
            listener.start()

    def stop(self) -> None:
        """Refuse connections from now on. What it holds stays."""
        for listener in self._listeners.values():
            listener.stop()

    def asked(self, method: str, path: str, *, ok: bool = True) -> list[Call]:
        """The recorded requests of a method whose path matches a regular expression; with `ok` only those that succeeded."""
        with self._lock:
            return [
                call
                for call in self.calls
                if call.method == method and re.search(path, call.path) and (not ok or 200 <= call.status < 300)
            ]

    def left(self) -> list[str]:
        """What still runs: deployments and jobs that somebody should have ended."""
        with self._lock:
            jobs = [job.id for job in (*self.customizer.alive(), *self.evaluator.alive())]
            return [*self.deployments.by_name, *jobs]

    def _take(self, service: str, routes: Routes, asked: Asked) -> Iterator[Answered | None]:
        at = time.monotonic()
        with self._lock:
            fault = next((fault for fault in self.faults if fault.matches(service, asked.method, asked.path)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.cut or fault.status:
                self._record(at, service, asked, 0 if fault.cut else fault.status)
                headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
                yield None if fault.cut else Answered({"detail": f"fault {fault.status}"}, fault.status, headers)
                return
        answered = self._answer(service, routes, asked)
        lost = fault is not None and fault.lost
        self._record(at, service, asked, 0 if lost else answered.status)
        yield None if lost else answered

    def _answer(self, service: str, routes: Routes, asked: Asked) -> Answered:
        try:
            # The hub client brings a token of its own to the Data Store.
            if self.key is not None and service != DATASTORE and asked.headers.get("Authorization") != f"Bearer {self.key}":
                raise Refused(401, "Unauthorized")
            handler = routes.find(asked)
            if service == NIM:
                return handler(asked)  # Chats take their time, and side by side.
            with self._lock:
                return handler(asked)
        except Refused as refused:
            headers = {"X-Error-Message": str(refused.detail)} if service == DATASTORE else {}
            return Answered({"detail": refused.detail}, refused.status, headers)

    def _record(self, at: float, service: str, asked: Asked, status: int) -> None:
        body: Any = None
        if asked.raw and len(asked.raw) < 1_000_000:
            with suppress(ValueError):
                body = json.loads(asked.raw)
        with self._lock:
            self.calls.append(Call(at, service, asked.method, asked.path, body, status))
