"""The xllamacpp engine: llama.cpp's server in a child process that cannot outlive this one.

What belongs here: starting, waiting, explaining a failure, stopping. What does not: which model and template a candidate
means (`deployment`), and the child itself (`llama_server`).
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from flywheel_assets.resources.serving.endpoint import ServingError

# A 100 GB model on a slow disk takes minutes to read; a server that is silent for longer is stuck.
START_TIMEOUT_S = 600.0
# llama.cpp holds nothing that a kill would damage: this is for politeness only.
_STOP_GRACE_S = 3.0
# The last lines explain a failure; a chatty server must not fill the memory.
_LOG_LINES = 200
_LOG_LINE_CHARS = 400
_SHOWN_LINES = 12
_GGUF_MAGIC = b"GGUF"
_NO_MEMORY = ("bad_alloc", "failed to allocate", "unable to allocate", "cannot allocate memory", "out of memory")
_CHILD = Path(__file__).with_name("llama_server.py")


@dataclass(frozen=True, slots=True)
class ServerOrder:
    """What to serve, and how.

    `context_length` is tokens of one slot; `port` 0 takes a free one; `gpu` offloads all layers; a `private` server
    answers only who holds its key.
    """

    model: Path
    alias: str
    adapter: Path | None
    chat_template: str | None
    context_length: int
    parallel: int
    threads: int
    gpu: bool
    port: int
    private: bool


class RunningServer:
    """A server child that was started: its address once it is ready, its log, and whether it is still there."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, api_key: str | None) -> None:
        self.name = name
        self.api_key = api_key
        self.address = ""
        self.build = ""
        assert process.stdin is not None
        self._process = process
        self._orders = process.stdin
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._reader = threading.Thread(target=self._collect_log, name=f"log of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def base_url(self) -> str:
        """Where the OpenAI API is."""
        return f"{self.address}/v1"

    def send(self, order: dict[str, Any]) -> None:
        """Give the child its order. The pipe stays open: its end tells the child that its parent is gone."""
        # A child that ended before it read its order is explained by waiting for its report.
        with suppress(BrokenPipeError):
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()

    def fault(self) -> str | None:
        """Why the server is gone, or None while it runs."""
        if self._process.poll() is None:
            return None
        return f"{self.name}: the model server {self.ending()}.{self.log_tail()}"

    def ending(self) -> str:
        """How the child ended, as the rest of a sentence."""
        status = self._process.poll()
        if status == -signal.SIGKILL:
            return "was killed (signal 9: usually because the system was out of memory)"
        if status is None:
            return "fell silent"
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"

    def log_tail(self) -> str:
        """The last lines of the server's log, as a block to hang on an error message; empty when it said nothing."""
        if self._process.poll() is not None:
            self._reader.join(timeout=1.0)
        lines = list(self._log)[-_SHOWN_LINES:]
        return "\nThe end of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""

    def mentions(self, phrases: tuple[str, ...]) -> bool:
        """Whether the log holds one of some phrases (lower case)."""
        self._reader.join(timeout=1.0)
        return any(phrase in line.lower() for line in self._log for phrase in phrases)

    def await_end(self) -> None:
        """Give a child that went silent the moment it needs to be gone, so that how it ended can be told."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_GRACE_S)

    def stop(self) -> None:
        """End the child: asked first, then killed. Returns when it is gone."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self.await_end()
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(_STOP_GRACE_S)
            with suppress(BrokenPipeError):
                self._orders.close()

    def _collect_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as log:
            for line in log:
                if text := line.decode(errors="replace").strip():
                    self._log.append(text[:_LOG_LINE_CHARS])


@contextmanager
def running_server(name: str, order: ServerOrder) -> Iterator[RunningServer]:
    """A llama.cpp server that is ready to answer; gone when the block ends, however it ends.

    `name` is what error messages call it. The kernel ties the child to the thread that enters the block: leave the block
    in the same one. Raises ServingError when the server cannot be started.
    """
    _check_gguf(name, order.model, "model")
    if order.adapter is not None:
        _check_gguf(name, order.adapter, "adapter")
    report, report_to = os.pipe()
    try:
        server = _spawn(name, order, report_to)
    except BaseException:
        os.close(report)
        raise
    finally:
        os.close(report_to)
    try:
        with os.fdopen(report, "rb") as pipe:
            _await_ready(server, order, pipe.fileno())
        yield server
    finally:
        server.stop()


def _spawn(name: str, order: ServerOrder, report_to: int) -> RunningServer:
    api_key = secrets.token_urlsafe(24) if order.private else None
    process = subprocess.Popen(
        # -P: the child's own folder must not come before the installed packages.
        [sys.executable, "-P", str(_CHILD), str(report_to), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[report_to],
        # Busy-waiting worker threads starve everything else on a small machine.
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
    )
    server = RunningServer(process, name, api_key)
    server.send(
        {
            "model": str(order.model),
            "alias": order.alias,
            "adapter": None if order.adapter is None else str(order.adapter),
            "chat_template": order.chat_template,
            "context_length": order.context_length,
            "parallel": order.parallel,
            "threads": order.threads,
            "gpu": order.gpu,
            "port": order.port,
            "api_key": api_key,
        }
    )
    return server


def _await_ready(server: RunningServer, order: ServerOrder, report: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    poll = select.poll()
    poll.register(report, select.POLLIN | select.POLLHUP)
    if not poll.poll(START_TIMEOUT_S * 1000):
        raise ServingError(
            f"{server.name}: the model server said nothing for {START_TIMEOUT_S:.0f} s while loading {order.model}."
            f"{server.log_tail()}"
        )
    line = _read_line(report)
    told: dict[str, Any] = json.loads(line) if line else {"error": "died", "message": ""}
    if "error" in told:
        raise ServingError(_explain(server, order, told))
    server.address, server.build = told["address"], told["build"]
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline:
            try:
                if client.get(f"{server.address}/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                if (fault := server.fault()) is not None:
                    raise ServingError(fault) from None
            time.sleep(0.05)
    raise ServingError(f"{server.name}: the model server is up, but did not become ready.{server.log_tail()}")


def _read_line(descriptor: int) -> bytes:
    """One line, or nothing when the writer is gone without a word."""
    read = b""
    while not read.endswith(b"\n") and (chunk := os.read(descriptor, 65536)):
        read += chunk
    return read


def _explain(server: RunningServer, order: ServerOrder, told: dict[str, Any]) -> str:
    """What a person can do about a server that did not start."""
    if told["error"] == "not_installed":
        return (
            f"{server.name}: xllamacpp, which serves GGUF models on this machine, is not installed ({told['message']}). "
            "Install the extra 'local': `pip install 'flywheel-assets[local]'`, or `make setup`."
        )
    if told["error"] == "died":
        server.await_end()
    if server.mentions(_NO_MEMORY) or any(phrase in told["message"].lower() for phrase in _NO_MEMORY):
        return (
            f"{server.name}: not enough memory for {order.model} with {order.parallel} x {order.context_length} tokens of "
            f"context. Lower `context_length` of the candidate, or use a smaller quantization.{server.log_tail()}"
        )
    with_adapter = f" with the adapter {order.adapter}" if order.adapter is not None else ""
    refused = told["error"] != "died"
    how = f"llama.cpp refused ({told['message']})" if refused else f"the model server {server.ending()}"
    return f"{server.name}: {how}. It was loading {order.model}{with_adapter}.{server.log_tail()}"


def _check_gguf(name: str, path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except FileNotFoundError:
        raise ServingError(f"{name}: the {what} {path} does not exist. Mend its path, or make the file first.") from None
    except OSError as error:
        raise ServingError(f"{name}: the {what} {path} cannot be read ({error.strerror}).") from None
    if magic != _GGUF_MAGIC:
        raise ServingError(f"{name}: the {what} {path} is not a GGUF file (it starts with {magic!r}).")
