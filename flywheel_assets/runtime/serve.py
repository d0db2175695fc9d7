"""Serve: the evaluated model of a workload behind an OpenAI-compatible URL, until somebody ends it."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Sequence

from flywheel_assets.core import graph
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.replay import with_prefix
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact, ArtifactStore
from flywheel_assets.resources.platform import LocalPlatform
from flywheel_assets.resources.serving import Endpoint, ServingError
from flywheel_assets.runtime.selection import Selection, select
from flywheel_assets.settings import Settings


def serve_workload(
    settings: Settings,
    workload: str,
    candidate: str | None,
    *,
    port: int,
    say: Callable[[str], None],
    check: Callable[[Sequence[Artifact]], None] = lambda evidence: None,
) -> None:
    """Serve on loopback until interrupted; says what is served, whether it was promoted, and a curl to try.

    `port` 0 takes a free one. `check` raises where what is to be served is not what was published.
    """
    artifacts = ArtifactStore(settings.home / "artifacts")
    selection = select(settings, artifacts, workload, candidate)
    check(selection.evidence)
    if selection.candidate.nim is not None:
        raise ServingError(
            f"workload '{workload}': {selection.candidate.id} ({selection.variant}) is a NIM. Deploy "
            f"{selection.candidate.model} in the cluster; it answers at {settings.nemo.nim_url}/v1."
        )
    serving = LocalPlatform.of(settings).serving
    with serving.deployed(
        selection.candidate, adapter_gguf=selection.adapter_gguf, owner="flywheel serve", port=port, private=False
    ) as endpoint:
        say(f"{selection.candidate.id} ({selection.variant}) for workload '{workload}' at {endpoint.base_url}")
        say(_standing(selection))
        if (how := how_to_ask(selection)) is not None:
            say(how)
        say("Try it:\n" + curl(endpoint, _sample_request(artifacts, workload), selection))
        say("Ctrl-C ends it.")
        threading.Event().wait()


def curl(endpoint: Endpoint, request: Json, selection: Selection) -> str:
    """A command that asks the endpoint one real request of the workload, as it was asked when the model was examined."""
    messages = with_prefix(request["messages"], selection.prefix)
    body = {"model": endpoint.model, **request, "messages": messages, **endpoint.extra_body(selection.variant)}
    return (
        f"curl -s {endpoint.base_url}/chat/completions -H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def how_to_ask(selection: Selection) -> str | None:
    """What an application must add to its requests to meet the model that was examined; None where that is nothing."""
    if not selection.prefix:
        return None
    return (
        f"It was examined with a prefix: send these {len(selection.prefix)} messages in every request, behind the system "
        f"messages and before all others, as the curl below does. They are `messages` of {selection.prefix_file}."
    )


def _standing(selection: Selection) -> str:
    if selection.promoted:
        return "Promoted: a person approved it."
    verdict = f"the verdict is `{selection.verdict}`" if selection.verdict else "nothing is decided yet"
    return f"NOT PROMOTED: {verdict}. For trying out, not for production traffic."


def _sample_request(artifacts: ArtifactStore, workload: str) -> Json:
    """The first eval request that expects a tool call, or else the first one."""
    rows = read_eval_rows(artifacts.require(graph.BASE, Partition(workload)).path)
    chosen = next((row for row in rows if row.reference.calls_tools), rows[0])
    return {**chosen.request, "temperature": 0}
