"""A hub of our own for tests: the part of the Hugging Face API that publishing needs, spoken to the official client.

Model repositories with Git LFS, tags, private ones, keys with rights (`tokens`), and addresses of uploads that are signed.
`cut_at` cuts every upload once so many bytes of large files came in, whatever of them was repeated; `faults` are those of
`tests.nemo.wire`. What is kept survives `stop()` and `start()`. It does not speak Xet, and asks for no multi-part uploads.

It is a double: that the client accepts it shows that it speaks the client's protocol, not that the product behaves so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from types import TracebackType

import yaml

from tests.hub_repositories import Repositories
from tests.nemo.wire import Answered, Asked, Call, Fault, Json, Listener, Refused, Routes

WRITE, READ = "hf_write_0123456789abcdef", "hf_read_0123456789abcdef"
SIGNATURE = "X-Amz-Signature=5ec7e7"
_LICENSES = frozenset({"apache-2.0", "mit", "unknown", "other"})
_CHUNK = 1 << 14


class HubServer(Repositories):
    """Listens at `url`. `calls` are the requests as they were answered, `received` the bytes of large files that came in."""

    def __init__(self) -> None:
        super().__init__(lambda: self.url)
        self.tokens = {WRITE: "write", READ: "read"}
        self.users = {WRITE: "ada", READ: "ada"}
        self.lfs_from = 1000
        self.cut_at: int | None = None
        self.received = 0
        # What happens as the body of an upload is about to be read.
        self.before_body: Callable[[], None] = lambda: None
        # Where a commit is said to be seen; None: where the client looks for it.
        self.commit_url: str | None = None
        # What happens once a tag is made.
        self.after_tag: Callable[[], None] = lambda: None
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._lock = threading.RLock()
        routes = Routes()
        self.routes(routes)
        routes.add("GET", "/api/whoami-v2", self._who)
        routes.add("POST", "/api/validate-yaml", self._validate)
        self._listener = Listener("hub", routes, self._take, self._receive)

    @property
    def url(self) -> str:
        return self._listener.url

    def __enter__(self) -> HubServer:
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.stop()

    def asked(self, method: str, part: str) -> list[Call]:
        """The requests of a method with `part` in their path that were answered well."""
        return [call for call in self.calls if call.method == method and part in call.path and 200 <= call.status < 300]

    def upload_url(self, oid: str) -> str:
        return f"{super().upload_url(oid)}?{SIGNATURE}"

    def _commit(self, asked: Asked) -> Answered:
        answered = super()._commit(asked)
        return Answered({**answered.content, "commitUrl": self.commit_url or answered.content["commitUrl"]})

    def _tag(self, asked: Asked) -> Answered:
        answered = super()._tag(asked)
        self.after_tag()
        return answered

    def _receive(self, request: BaseHTTPRequestHandler) -> bytes | None:
        length = int(request.headers["Content-Length"] or 0)
        if request.command != "PUT":
            return request.rfile.read(length)
        self.before_body()
        parts: list[bytes] = []
        while length:
            room = _CHUNK if self.cut_at is None else min(_CHUNK, self.cut_at - self.received)
            if room <= 0:
                self.calls.append(Call(time.monotonic(), "hub", "PUT", request.path, None, 0))
                return None
            part = request.rfile.read(min(room, length))
            if not part:
                return None
            parts.append(part)
            length -= len(part)
            self.received += len(part)
        return b"".join(parts)

    def _take(self, service: str, routes: Routes, asked: Asked) -> Iterator[Answered | None]:
        with self._lock:
            fault = next((fault for fault in self.faults if fault.matches(service, asked.method, asked.path)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None and (fault.cut or fault.status):
            time.sleep(fault.delay_s)
            self._record(asked, fault.status)
            headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            yield None if fault.cut else Answered({"error": f"fault {fault.status}"}, fault.status, headers)
            return
        with self._lock:
            answered = self._answer(routes, asked)
        lost = fault is not None and fault.lost
        self._record(asked, 0 if lost else answered.status)
        yield None if lost else answered

    def _answer(self, routes: Routes, asked: Asked) -> Answered:
        try:
            self._admit(asked)
            return routes.find(asked)(asked)
        except Refused as refused:
            codes = {404: "RepoNotFound"} if "repository" in str(refused.detail) else {}
            headers = {"X-Error-Message": str(refused.detail)}
            if refused.status in codes:
                headers["X-Error-Code"] = codes[refused.status]
            return Answered({"error": refused.detail}, refused.status, headers)

    def _admit(self, asked: Asked) -> None:
        if asked.method == "PUT":
            if asked.query.get("X-Amz-Signature") != SIGNATURE.partition("=")[2]:
                raise Refused(403, "SignatureDoesNotMatch")
            return
        token = self._token(asked)
        if token not in self.tokens:
            # As a careless server does: it quotes what it refuses.
            raise Refused(401, f"Invalid username or password: {token}")
        writes = asked.method in ("POST", "DELETE") and "validate-yaml" not in asked.path
        if writes and self.tokens[token] != "write":
            raise Refused(403, "Your token has no write access to this namespace")

    def _token(self, asked: Asked) -> str:
        return asked.headers.get("authorization", asked.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _who(self, asked: Asked) -> Answered:
        return Answered({"type": "user", "name": self.users[self._token(asked)], "auth": {"type": "access_token"}})

    def _validate(self, asked: Asked) -> Answered:
        """The front matter of a card: YAML, with a licence the hub knows."""
        front = asked.json()["content"].split("---\n")[1]
        try:
            content: Json = yaml.safe_load(front)
        except yaml.YAMLError as error:
            return Answered({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if content.get("license") not in _LICENSES:
            return Answered({"errors": [{"message": f"license: {content.get('license')}"}], "warnings": []}, 400)
        return Answered({"errors": [], "warnings": []})

    def _record(self, asked: Asked, status: int) -> None:
        self.calls.append(Call(time.monotonic(), "hub", asked.method, asked.path, None, status))
