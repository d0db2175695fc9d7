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

_LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on InvalidSubsetError { message } ... on RunConfigValidationInvalid { errors { message } } } }"""
_ADD = """mutation($r: RepositorySelector!, $d: String!, $k: String!) {
  addDynamicPartition(repositorySelector: $r, partitionsDefName: $d, partitionKey: $k) { __typename } }"""
_RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_TERMINATE = "mutation($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"


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


def launch(url: str, paths: list[list[str]], partition: str) -> str:
    """The mutation the UI sends for *Materialize selected*; the id of the run."""
    if "|" not in partition:
        ask(url, _ADD, r=REPOSITORY, d="workload", k=partition)
    params = {
        "selector": {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": path} for path in paths]},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}, *_dimensions(partition)]},
        "runConfigData": "{}",
        "mode": "default",
    }
    launched = ask(url, _LAUNCH, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def terminate(url: str, run_id: str) -> None:
    """The mutation the UI sends for *Terminate*."""
    assert ask(url, _TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"


def ended(url: str, run_id: str, *, within_s: float = 600) -> str:
    """How a run ended, once it has."""
    deadline = time.monotonic() + within_s
    while (status := ask(url, _RUN, id=run_id)["runOrError"]["status"]) not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < deadline, status
        time.sleep(1)
    return str(status)


def _dimensions(partition: str) -> list[dict[str, str]]:
    if "|" not in partition:
        return []
    candidate, workload = partition.split("|")
    return [
        {"key": "dagster/partition/candidate", "value": candidate},
        {"key": "dagster/partition/workload", "value": workload},
    ]


def materializations(url: str, path: list[str], partition: str) -> list[dict[str, str]]:
    """`{runId, timestamp (ms)}` of every materialization of one partition, the latest first."""
    found = ask(url, _MATERIALIZATIONS, key={"path": path}, partitions=[partition])
    return found["assetOrError"].get("assetMaterializations", [])  # type: ignore[no-any-return]


def dev_log(clone: Clone) -> str:
    """The end of what `dagster dev` printed."""
    return (clone.root / "dev.log").read_text()[-5000:]
