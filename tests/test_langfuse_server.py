"""The Langfuse test server agrees with what was recorded from the product: status, and keys and types of every answer."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.langfuse_server import PUBLIC_KEY, SECRET_KEY, LangfuseServer

WIRE = [json.loads(line) for line in (Path(__file__).parent / "fixtures" / "langfuse_wire.jsonl").read_text().splitlines()]
NOT_SPOKEN = ("/v2/metrics", "/v2/prompts")
SPOKEN = [exchange for exchange in WIRE if not any(part in exchange["path"] for part in NOT_SPOKEN)]


@pytest.fixture
def server() -> Iterator[LangfuseServer]:
    """The 4.16 server's contents, as far as the recording shows them."""
    with LangfuseServer(version="4.16.0") as server:
        rows: dict[str, Any] = {}
        for exchange in WIRE:
            if "v2/observations" in exchange["path"] and exchange["status"] == 200:
                for row in exchange["resp"]["data"]:
                    rows[row["id"]] = {**_blank(), **rows.get(row["id"], {}), **row}
        for row in rows.values():
            if row["sessionId"] == "s1":
                row["tags"] = ["t1", "wl:support"]
            # The recorded metadata filter found nothing, though the rows it names are there.
            row["metadata"] = {k: v for k, v in row["metadata"].items() if k != "workload_id"}
            server.add(row)
        for exchange in WIRE:
            if exchange["method"] == "POST" and any(part in exchange["path"] for part in ("/datasets", "/dataset-items")):
                path = exchange["path"]
                assert server.answer("POST", path, {}, json.dumps(exchange["req"]).encode())[0] == 200
            if "v3/scores" in exchange["path"]:
                for score in exchange["resp"]["data"]:
                    server.scores[score["id"]] = dict(score)
        yield server


def _blank() -> dict[str, Any]:
    return {"metadata": {}, "tags": []}


def replayed(server: LangfuseServer, exchange: dict[str, Any]) -> httpx.Response:
    url = server.url + exchange["path"]
    auth = (PUBLIC_KEY, SECRET_KEY)
    if exchange["method"] == "GET":
        return httpx.get(url, auth=auth)
    if isinstance(exchange["req"], dict) and "b64" in exchange["req"]:
        body = gzip.compress(base64.b64decode(exchange["req"]["b64"]))
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        return httpx.post(url, content=body, headers=headers, auth=auth)
    return httpx.post(url, json=exchange["req"], auth=auth)


def shape(value: Any) -> Any:
    """Keys and kinds; a list is the shape of all its elements, free-form maps (metadata, usage, cost) are just maps."""
    if isinstance(value, dict):
        free = ("metadata", "usageDetails", "costDetails", "modelParameters")
        return {key: "map" if key in free and isinstance(inner, dict) else shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        kinds = [shape(item) for item in value]
        return [merged(kinds)] if kinds else []
    if isinstance(value, bool):
        return "true or false"
    if value is None:
        return "null"
    return "number" if isinstance(value, int | float) else "text"


def merged(kinds: list[Any]) -> Any:
    first = kinds[0]
    for other in kinds[1:]:
        if isinstance(first, dict) and isinstance(other, dict):
            assert first.keys() == other.keys()
            first = {key: merged([first[key], other[key]]) for key in first}
        elif first == "null":
            first = other
    return first


def agree(ours: Any, recorded: Any, where: str = "answer") -> None:
    if "null" in (ours, recorded) or [] in (ours, recorded):
        return
    if isinstance(ours, dict) and isinstance(recorded, dict):
        # The one recorded page of two had a successor; whether there is one depends on the rows held.
        odd = (ours.keys() ^ recorded.keys()) - ({"cursor"} if where.endswith(".meta") else set())
        assert not odd, (where, odd)
        for key in ours.keys() & recorded.keys():
            agree(ours[key], recorded[key], f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(recorded, list):
        agree(ours[0], recorded[0], f"{where}[]")
    else:
        assert ours == recorded, (where, ours, recorded)


@pytest.mark.parametrize("number", range(len(SPOKEN)), ids=[f"{e['method']} {e['path'][:60]}" for e in SPOKEN])
def test_every_recorded_request_gets_the_recorded_status_and_shape(server: LangfuseServer, number: int) -> None:
    exchange = SPOKEN[number]
    response = replayed(server, exchange)
    assert response.status_code == exchange["status"]
    agree(shape(response.json()), shape(exchange["resp"]))
    if exchange["status"] != 200:
        assert response.json() == exchange["resp"]


@pytest.mark.parametrize("exchange", [e for e in WIRE if e not in SPOKEN], ids=lambda e: f"{e['method']} {e['path'][:40]}")
def test_what_the_server_does_not_speak_it_says(server: LangfuseServer, exchange: dict[str, Any]) -> None:
    assert replayed(server, exchange).status_code == 501


def test_recorded_spans_become_the_recorded_observations() -> None:
    traced, read = WIRE[1], {row["id"]: row for exchange in (WIRE[4], WIRE[5]) for row in exchange["resp"]["data"]}
    unknown = {"createdAt", "updatedAt", "internalModelId", "modelId", "inputPrice", "outputPrice", "completionStartTime"}
    unknown |= {"usagePricingTierId", "usagePricingTierName"}
    with LangfuseServer() as server:
        assert replayed(server, traced).status_code == 200
        for trace_id in ("ff40f19630a1704de7c5bfff8b77e7a2", "293ced5a8759e0bbd13e9fe22272e1e7"):
            generations = [row for row in server.observations.values() if row["type"] == "GENERATION"]
            for row in [row for row in generations if row["traceId"] == trace_id]:
                recorded = read[row["id"]]
                assert row.keys() == recorded.keys()
                costs = {key for key in recorded if "ost" in key}
                assert {k: row[k] for k in row.keys() - unknown - costs} == {
                    k: recorded[k] for k in recorded.keys() - unknown - costs
                }
                assert row["totalCost"] == pytest.approx(recorded["totalCost"])


def test_recorded_spans_of_an_experiment_become_the_recorded_experiment() -> None:
    with LangfuseServer(version="4.16.0") as server:
        spans = next(e for e in WIRE[10:] if "otel" in e["path"])
        assert replayed(server, spans).status_code == 200
        for path, key in (("/experiments", "id"), ("/experiment-items", "experimentId")):
            recorded = next(e for e in WIRE if f"{path}?" in e["path"])["resp"]["data"]
            ours = httpx.get(f"{server.url}/api/public{path}", auth=(PUBLIC_KEY, SECRET_KEY)).json()["data"]
            wanted = [row for row in recorded if row[key] == ours[0][key]]
            # The recording has the milliseconds of another clock in some of its times.
            assert [{k: v for k, v in row.items() if "Time" not in k} for row in ours] == [
                {k: v for k, v in row.items() if "Time" not in k} for row in wanted
            ]


def test_wrong_keys_are_refused(server: LangfuseServer) -> None:
    assert httpx.get(server.url + "/api/public/projects", auth=("pk", "sk")).status_code == 401
