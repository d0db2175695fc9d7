"""A running `dagster dev` (webserver and daemon), asked over GraphQL the way the UI asks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.clone import Clone

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "flywheel_assets"}

_READY = "{ assetNodes { assetKey { path } } }"
_MATERIALIZATIONS = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(partitions: $partitions) { runId timestamp } } } }"""


@contextmanager
def dagster_dev(clone: Clone, *, dagster_home: bool = True) -> Iterator[str]:
    """`dagster dev` in the clone; yields the GraphQL URL. Without `dagster_home` the variable is not set, as by hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = clone.env()
    if not dagster_home:
        del environment["DAGSTER_HOME"]
    command = [
        *clone.through,
        str(Path(sys.executable).with_name("dagster")),
        "dev",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    log = (clone.root / "dev.log").open("w")
    with subprocess.Popen(
        command, cwd=clone.root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        url = f"http://127.0.0.1:{port}/graphql"
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    if httpx.post(url, json={"query": _READY}, timeout=20).json()["data"]["assetNodes"]:
                        break
                except (httpx.TransportError, KeyError, ValueError, TypeError):
                    pass
                assert process.poll() is None and time.monotonic() < deadline, dev_log(clone)
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
            finally:
                # Webserver and daemon are children of it, and outlive it where it is killed.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def ask(url: str, query: str, **variables: Any) -> Any:
    """The data of a GraphQL answer without errors."""
    answer = httpx.post(url, json={"query": query, "variables": variables}, timeout=60).json()
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


def materializations(url: str, path: list[str], partition: str) -> list[dict[str, str]]:
    """`{runId, timestamp (ms)}` of every materialization of one partition, the latest first."""
    found = ask(url, _MATERIALIZATIONS, key={"path": path}, partitions=[partition])
    return found["assetOrError"].get("assetMaterializations", [])  # type: ignore[no-any-return]


def dev_log(clone: Clone) -> str:
    """The end of what `dagster dev` printed."""
    return (clone.root / "dev.log").read_text()[-5000:]
