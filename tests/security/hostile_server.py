"""An endpoint that lies: whatever bytes a test wants, over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

MODELS = b'{"object": "list", "data": [{"id": "double", "object": "model", "owned_by": "somebody"}]}'
Answer = Callable[[socket.socket, bytes], None]


def http(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer."""
    told = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(told).encode("latin-1") + b"\r\n\r\n" + body


class HostileServer:
    """`GET` lists a model, as it should; `answer(connection, request)` speaks after each chat request.

    `requests` are the raw requests that were made, heads and bodies.
    """

    def __init__(self, answer: Answer, models: bytes = MODELS) -> None:
        self._answer, self._models = answer, models
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        # Whoever is asked for too much hangs up, which is the point.
        with connection, suppress(OSError):
            request = _whole(connection)
            if not request:
                return
            self.requests.append(request)
            if request.startswith(b"GET "):
                connection.sendall(http(self._models, "Content-Type: application/json"))
            else:
                self._answer(connection, request)


def _whole(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        if not (chunk := connection.recv(65536)):
            return found
        found += chunk
    head, _, body = found.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
