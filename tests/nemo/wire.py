"""The wire of the NeMo test server: requests as they came in, answers, refusals, faults, and who listens where.

What belongs here: sockets, dispatch, recording, faults. What does not: what any service means (the modules beside this one).
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

Json = dict[str, Any]


class Refused(Exception):
    """A request that breaks a rule of the API, with its status."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Call:
    """One request as it was answered: `at` is `time.monotonic()` on arrival, `status` 0 where no answer was given."""

    at: float
    service: str
    method: str
    path: str
    body: Any
    status: int


@dataclass
class Fault:
    """How matching requests go wrong, `times` of them: a status, a late answer, a cut connection, or a lost answer.

    `path` is a regular expression searched in the path. `lost` does what was asked and then cuts the connection.
    """

    status: int = 0
    path: str = ""
    method: str = ""
    service: str = ""
    times: int = 1
    delay_s: float = 0.0
    cut: bool = False
    lost: bool = False
    retry_after: str | None = None

    def matches(self, service: str, method: str, path: str) -> bool:
        named = self.service in ("", service) and self.method in ("", method)
        return self.times > 0 and named and re.search(self.path, path) is not None


@dataclass
class Asked:
    """One request: path arguments by name, query, headers, and the body as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    arguments: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        try:
            return json.loads(self.raw or b"null")
        except ValueError:
            raise Refused(400, "the body is not JSON") from None

    def form(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(self.raw.decode()).items()}


@dataclass(frozen=True)
class Answered:
    """What a handler gives back; `content` is JSON-ready or bytes."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], Answered]


class Routes:
    """Handlers by method and path pattern, such as `/v1/datasets/{namespace}/{name}`."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        expression = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", pattern)
        expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression)
        self._routes.append((method, re.compile(expression + r"\Z"), handler))

    def find(self, asked: Asked) -> Handler:
        known = False
        for method, pattern, handler in self._routes:
            if (found := pattern.match(asked.path)) is not None:
                known = True
                if method == asked.method:
                    asked.arguments = {name: unquote(value) for name, value in found.groupdict().items()}
                    return handler
        raise Refused(405 if known else 404, "Method Not Allowed" if known else "Not Found")


Take = Callable[[str, Routes, Asked], Iterator[Answered | None]]
# Reads the body of a request; None cuts the connection.
Receive = Callable[[BaseHTTPRequestHandler], bytes | None]


def receive_all(request: BaseHTTPRequestHandler) -> bytes | None:
    """The whole body."""
    return request.rfile.read(int(request.headers["Content-Length"] or 0))


class Listener:
    """One service on a port of its own, which it keeps over restarts."""

    def __init__(self, service: str, routes: Routes, take: Take, receive: Receive = receive_all) -> None:
        self.service, self._routes, self._take, self._receive = service, routes, take, receive
        self.port = 0
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = self

        class Handling(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                if (raw := listener._receive(self)) is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
                asked = Asked(self.command, url.path, query, dict(self.headers.items()), raw)
                for answered in listener._take(listener.service, listener._routes, asked):
                    if answered is None:
                        self.close_connection = True
                        self.connection.close()
                        return
                    _send(self, answered)

            def setup(self) -> None:
                super().setup()
                listener._open.add(self.connection)

            def finish(self) -> None:
                listener._open.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815 - the handler's names

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handling)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            # A server that is gone keeps no connection alive either.
            for connection in list(self._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _send(request: BaseHTTPRequestHandler, answered: Answered) -> None:
    is_bytes = isinstance(answered.content, bytes)
    body = answered.content if is_bytes else b"" if answered.content is None else json.dumps(answered.content).encode()
    try:
        request.send_response(answered.status)
        request.send_header("Content-Type", "application/octet-stream" if is_bytes else "application/json")
        for name, value in answered.headers.items():
            request.send_header(name, value)
        if "Content-Length" not in answered.headers:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):
        request.close_connection = True  # The client gave up, as tests of time-outs want it to.


def checked(adapter: TypeAdapter[Any], accepted: frozenset[str], body: Any) -> Json:
    """A body that the SDK's own parameter type accepts and that holds no key it does not know; 422 otherwise."""
    try:
        adapter.validate_python(body)
    except ValidationError as error:
        faults = [{"loc": list(fault["loc"]), "msg": fault["msg"], "type": fault["type"]} for fault in error.errors()]
        raise Refused(422, faults) from None
    unknown = sorted(set(body) - accepted)
    if unknown:
        raise Refused(422, f"unknown fields: {', '.join(unknown)}")
    return dict(body)


def parameters(typed_dict: Any) -> tuple[TypeAdapter[Any], frozenset[str]]:
    """What `checked` needs of one of the SDK's parameter types."""
    return TypeAdapter(typed_dict), frozenset(typed_dict.__annotations__)


def page(items: list[Json], asked: Asked) -> Json:
    """A page of a list, the way every v1 list gives it."""
    number, size = int(asked.query.get("page", 1)), int(asked.query.get("page_size", 10))
    shown = items[(number - 1) * size : number * size]
    total = max(1, -(-len(items) // size))
    counts = {"page": number, "page_size": size, "current_page_size": len(shown)}
    return {"object": "list", "data": shown, "pagination": {**counts, "total_pages": total, "total_results": len(items)}}


def now_text() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1e6) % 1_000_000:06d}"
