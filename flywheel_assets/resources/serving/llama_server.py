"""The model server child: llama.cpp's HTTP server, run in process through xllamacpp.

Started as a file, not as a module of the package, so that nothing else is imported: it is up when the model is. Its
order comes as one line of JSON on stdin, which stays open after that: when it closes, the parent is gone. What it has to
say (its address, or why there is none) goes as one line of JSON to the descriptor named in argv. Standard output and
error carry llama.cpp's log.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_WARNINGS = 2
_LOG_GRACE_S = 0.3


def main(report_descriptor: int, parent: int) -> None:
    """Serve until stdin closes. Exit status 1, after a report, when the server cannot be started."""
    _die_with(parent)
    order = json.loads(sys.stdin.buffer.readline())
    # Loading can take minutes: a parent that dies meanwhile must not be outlived, even if loading holds the interpreter.
    threading.Thread(target=_exit_when_stdin_closes, daemon=True).start()
    try:
        import xllamacpp
    except ImportError as error:
        _refuse(report_descriptor, "not_installed", str(error))
    try:
        server = xllamacpp.Server(_parameters(xllamacpp, order))
    except Exception as error:  # noqa: BLE001 - whatever the engine raises, the parent must hear it
        _refuse(report_descriptor, "failed", f"{type(error).__name__}: {error}")
    _report(report_descriptor, {"address": server.listening_address, "build": _build(xllamacpp)})
    threading.Event().wait()


def _parameters(xllamacpp: Any, order: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = order["model"]
    parameters.model_alias = {order["alias"]}
    if order["api_key"] is not None:
        parameters.api_keys = [order["api_key"]]
    # llama.cpp divides the context over its slots.
    parameters.n_ctx = order["context_length"] * order["parallel"]
    parameters.n_parallel = order["parallel"]
    parameters.cpuparams.n_threads = order["threads"]
    parameters.cpuparams_batch.n_threads = order["threads"]
    parameters.n_gpu_layers = -1 if order["gpu"] else 0
    parameters.use_jinja = True
    if order["chat_template"] is not None:
        parameters.chat_template = order["chat_template"]
    if order["adapter"] is not None:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(order["adapter"], 1.0)]
    if order["port"]:
        parameters.port = order["port"]
    # Shrinking the context to fit the memory would change answers from machine to machine: fail instead.
    parameters.fit_params = False
    # The cache of whole prompts in memory (8 GiB by default) is not keyed by adapter scale; each slot's own cache is.
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False
    parameters.n_ctx_checkpoints = 0
    parameters.endpoint_slots = False
    parameters.ui = False
    parameters.verbosity = _WARNINGS
    return parameters


def _build(xllamacpp: Any) -> str:
    number = xllamacpp.BUILD_INFO.get("build_number")
    return f"xllamacpp {xllamacpp.__version__}" + (f"/llama.cpp b{number}" if number else "")


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, and close the gap before that took hold."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _exit_when_stdin_closes() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _report(descriptor: int, content: dict[str, Any]) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(content) + "\n")


def _refuse(descriptor: int, kind: str, message: str) -> NoReturn:
    # llama.cpp logs from a thread of its own, and what it has to say about this failure may still be on its way.
    time.sleep(_LOG_GRACE_S)
    _report(descriptor, {"error": kind, "message": message})
    # Not sys.exit: a half-built server may have threads that would be waited for.
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
