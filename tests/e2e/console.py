"""Dagster's UI in a real browser, driven the way a person does: pages opened, things clicked, and what is read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.browser import Tab
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import REPOSITORY, ask, dev_log

_RUNS = "{ runsOrError { ... on Runs { results { runId status pipelineName tags { key value } } } } }"
_LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass
class Console:
    """The UI of one clone, in one tab; pictures of what it shows go to a folder."""

    clone: Clone
    graphql: str
    tab: Tab
    pictures: Path

    def open(self, path: str) -> None:
        """Open a page of the UI."""
        self.tab.open(self.graphql.removesuffix("/graphql") + path)

    def asset(self, name: str, partition: str = "", view: str = "partitions") -> None:
        """Open the page of an asset, at one partition."""
        at = f"&partition={quote(partition)}" if partition else ""
        self.open(f"/assets/{name}?view={view}{at}")

    def picture(self, name: str, *, whole: bool = False) -> None:
        """Keep what the tab shows, once it has come to rest."""
        self.tab.at_rest()
        (self.pictures / f"{name}.png").write_bytes(self.tab.picture(whole=whole))

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs that carry these tags (`flywheel_` stands for `flywheel/`), the latest first."""
        wanted = {name.replace("_", "/", 1): value for name, value in tags.items()}
        found = []
        for run in ask(self.graphql, _RUNS)["runsOrError"]["results"]:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
            if wanted.items() <= run["tags"].items():
                found.append(run)
        return found

    def status(self, run_id: str) -> str:
        """How a run stands."""
        return next(run["status"] for run in self.runs() if run["runId"] == run_id)

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run."""
        found: dict[str, str] = next(run["tags"] for run in self.runs() if run["runId"] == run_id)
        return found

    def launch(self, job: str, config: dict[str, dict[str, str]]) -> str:
        """What the launchpad sends for a job with the config of its ops; the run's id."""
        params = {
            "selector": {**REPOSITORY, "pipelineName": job},
            "runConfigData": json.dumps({"ops": {op: {"config": fields} for op, fields in config.items()}}),
            "mode": "default",
        }
        launched = ask(self.graphql, _LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """What the button *Terminate* does."""
        ask(self.graphql, _TERMINATE, id=run_id)

    def until(self, done: Callable[[], Any], patience_s: float = 240) -> Any:
        """Wait for something that must come; what Dagster logged is the failure's message."""
        deadline = time.monotonic() + patience_s
        while not (found := done()):
            assert time.monotonic() < deadline, dev_log(self.clone)
            time.sleep(1)
        return found
