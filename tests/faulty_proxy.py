"""A proxy that misbehaves on purpose: between a client and a server, it answers some requests as a failing cluster would."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

Fault = Callable[["FaultyProxy", Any, "Request"], bool]


class Request:
    """What came in: method, path (without the query), body, and who asks."""

    def __init__(self, method: str, target: str, body: bytes, authorization: str | None = None) -> None:
        self.method, self.target, self.body, self.authorization = method, target, body, authorization
        self.path = target.partition("?")[0]


class FaultyProxy:
    """Passes requests on to `upstream`. `fault(proxy, handler, request)` may answer instead, and then returns True.

    `tls` are the files of a certificate and its key: clients must then speak TLS.
    """

    def __init__(self, upstream: str, *, tls: tuple[Path, Path] | None = None) -> None:
        self.upstream = upstream
        self.fault: Fault | None = None
        self.requests: list[Request] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                request = Request(self.command, self.path, self.rfile.read(length), self.headers.get("authorization"))
                proxy.requests.append(request)
                if proxy.fault is not None and proxy.fault(proxy, self, request):
                    return
                proxy.reply(self, *proxy.forward(self, request))

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._client = httpx.Client(timeout=20)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def forward(self, handler: Any, request: Request) -> tuple[int, bytes, str]:
        headers = {k: v for k, v in handler.headers.items() if k.lower() in ("content-type", "accept")}
        try:
            got = self._client.request(request.method, self.upstream + request.target, content=request.body, headers=headers)
        except (httpx.HTTPError, RuntimeError):  # The latter where this proxy has been closed in the meantime.
            return 503, b'{"error": {"type": "proxy", "reason": "upstream is away"}, "status": 503}', "application/json"
        return got.status_code, got.content, got.headers.get("content-type", "application/json")

    def reply(self, handler: Any, status: int, body: bytes, kind: str = "application/json") -> None:
        handler.send_response(status)
        handler.send_header("X-Elastic-Product", "Elasticsearch")
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()


def busy(every: int) -> Fault:
    """Of each `every` requests, all but one are refused with 429."""
    count = iter(range(10**9))

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if next(count) % every == every - 1:
            return False
        proxy.reply(handler, 429, b'{"error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}')
        return True

    return fault


def locked(authorization: str) -> Fault:
    """Whoever does not say this in `Authorization` is refused."""

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if request.authorization == authorization:
            return False
        proxy.reply(handler, 401, b'{"error": {"type": "security_exception", "reason": "who are you?"}, "status": 401}')
        return True

    return fault


def answer_lost(every: int) -> Fault:
    """Each `every`th request is carried out, and its connection is reset before the answer."""
    count = iter(range(10**9))

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if next(count) % every != every - 1:
            return False
        proxy.forward(handler, request)
        handler.close_connection = True
        handler.connection.close()
        return True

    return fault


def slow_once(path: str, seconds: float) -> Fault:
    """The first request whose path ends so is carried out, and answered too late."""
    left = [1]

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if not request.path.endswith(path) or not left:
            return False
        left.pop()
        proxy.forward(handler, request)
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return fault


def items_busy(share: int) -> Fault:
    """Of each bulk request, only every `share`th document is written; the others are refused with 429."""

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if not request.path.endswith("/_bulk"):
            return False
        lines = request.body.splitlines()
        pairs = [lines[at : at + 2] for at in range(0, len(lines), 2)]
        kept = [line for number, pair in enumerate(pairs) for line in pair if number % share == 0]
        passed = Request(request.method, request.target, b"\n".join(kept) + b"\n")
        status, body, kind = proxy.forward(handler, passed)
        answer = json.loads(body)
        written = iter(answer["items"])
        items = []
        for number, pair in enumerate(pairs):
            if number % share == 0:
                items.append(next(written))
                continue
            ((action, meta),) = json.loads(pair[0]).items()
            error = {"type": "es_rejected_execution_exception", "reason": "queue full"}
            items.append({action: {"_id": meta["_id"], "status": 429, "error": error}})
        proxy.reply(handler, status, json.dumps({**answer, "errors": True, "items": items}).encode(), kind)
        return True

    return fault


def shards_failed(path: str = "_search") -> Fault:
    """Searches come back with what one of two shards found."""

    def fault(proxy: FaultyProxy, handler: Any, request: Request) -> bool:
        if not request.path.endswith(path):
            return False
        status, body, kind = proxy.forward(handler, request)
        failure = {"shard": 1, "reason": {"type": "node_disconnected_exception", "reason": "node left"}}
        shards = {"total": 2, "successful": 1, "failed": 1, "failures": [failure]}
        proxy.reply(handler, status, json.dumps({**json.loads(body), "_shards": shards}).encode(), kind)
        return True

    return fault
