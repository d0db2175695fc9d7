"""A server that speaks Elasticsearch (noida-db), as a process of its own: started, killed and started again by tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import httpx

from flywheel_assets.resources.trace_stores.elasticsearch import Access, Connection


class ElasticsearchServer:
    """noida-db on a port of its own, with its data under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        spec = find_spec("noida_db")
        assert spec is not None and spec.origin is not None
        command = [Path(spec.origin).with_name("noida-db"), "start", "--only", "elasticsearch"]
        self._process = subprocess.Popen(
            [*command, "--elasticsearch-port", str(self.port), "--data-dir", self._folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while True:
            try:
                httpx.get(self.url, timeout=1).raise_for_status()
                return
            except httpx.HTTPError:
                assert self._process.poll() is None and time.monotonic() < until, "noida-db did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def connection(self, *, timeout_s: float = 10, retry_s: float = 10) -> Connection:
        return Connection(Access(self.url), timeout_s=timeout_s, retry_s=retry_s)


def fresh_index() -> str:
    return f"traces-{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
