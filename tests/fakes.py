"""Doubles of what lies outside this machine.

What belongs here: servers that speak a real protocol over a real socket. What does not: doubles of our own code.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """How one chat request goes wrong: a status, garbage instead of JSON, or an answer that comes late."""

    status: int = 200
    retry_after: str | None = None
    body: bytes | None = None
    delay_s: float = 0.0


@dataclass
class OpenAIDouble:
    """An OpenAI-compatible server on a thread that counts what it is asked.

    `answer` makes the assistant message of a request; `faults` are used up, one a chat request, before any is answered;
    `always` is the fault of every request. `chats` are the bodies of all chat requests, failed ones too.
    """

    answer: Callable[[Message], Message] = lambda body: {"role": "assistant", "content": "ok"}
    models: tuple[str, ...] = ("double",)
    key: str | None = None
    owned_by: str = "double"
    serves_api: bool = True
    port: int = 0
    always: Fault | None = None
    faults: deque[Fault] = field(default_factory=deque)
    chats: list[Message] = field(default_factory=list)
    chat_headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its base URL, as a candidate's `model`."""
        assert self._server is not None, "the double is not started"
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def count(self) -> int:
        """Chat requests received so far."""
        return len(self.chats)

    def __enter__(self) -> OpenAIDouble:
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double._get(self)

            def do_POST(self) -> None:
                double._post(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening: connections are refused from now on. The URL stays known."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        if not self.serves_api:
            _send(request, 404, b"not here")
        elif not self._knows(request):
            _send(request, 401, json.dumps({"error": {"message": "no such key"}}).encode())
        elif request.path == "/v1/models":
            entries = [{"id": name, "object": "model", "owned_by": self.owned_by} for name in self.models]
            _send(request, 200, json.dumps({"object": "list", "data": entries}).encode())
        elif request.path == "/version":
            _send(request, 200, b'{"version": "1.2.3"}')
        else:
            _send(request, 404, b"{}")

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self._lock:
            self.chats.append(body)
            self.chat_headers.append(dict(request.headers.items()))
            fault = self.faults.popleft() if self.faults else self.always
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._respond(request, body, fault)
        finally:
            with self._lock:
                self._now -= 1

    def _respond(self, request: BaseHTTPRequestHandler, body: Message, fault: Fault | None) -> None:
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.body is not None:
                _send(request, fault.status, fault.body)
                return
            if fault.status != 200:
                content = json.dumps(
                    {"error": {"message": f"double: {fault.status} {request.headers['Authorization']}"}}
                ).encode()
                _send(request, fault.status, content, fault.retry_after)
                return
        _send(request, 200, json.dumps(completion(self.answer(body), body["model"])).encode())

    def _knows(self, request: BaseHTTPRequestHandler) -> bool:
        return self.key is None or request.headers["Authorization"] == f"Bearer {self.key}"


def completion(message: Message, model: str = "double") -> dict[str, Any]:
    """A chat completion around an assistant message."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, retry_after: str | None = None) -> None:
    try:
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            request.send_header("Retry-After", retry_after)
        request.end_headers()
        request.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # The client has given up, as tests of time-outs want it to.
