"""Datasets and experiments of the Langfuse test server: as a 4.16 server answered SDK 5.0.4 in the recorded exchanges.

What belongs here: datasets, their items, and experiments, which are nothing but the spans that carry their attributes. What
does not: HTTP, observations, scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.langfuse_otlp import PROJECT, Json

DATASETS, ITEMS = "/api/public/v2/datasets", "/api/public/dataset-items"
EXPERIMENTS, EXPERIMENT_ITEMS = "/api/public/experiments", "/api/public/experiment-items"


@dataclass
class Datasets:
    """`sets` by name, `items` by id, `spans` of experiments by id, the newest last."""

    paths: tuple[str, ...] = (DATASETS, ITEMS, EXPERIMENTS, EXPERIMENT_ITEMS)
    sets: dict[str, Json] = field(default_factory=dict)
    items: dict[str, Json] = field(default_factory=dict)
    spans: dict[str, Json] = field(default_factory=dict)

    def saw(self, spans: list[Json]) -> None:
        """Spans of experiments have come in; one that is sent again takes the place of the first."""
        self.spans |= {span["id"]: span for span in spans}

    def answer(self, method: str, path: str, query: dict[str, list[str]], content: Any) -> tuple[int, Json]:
        """Status and content for one request; `path` without escapes."""
        if (method, path) == ("POST", DATASETS):
            return 200, self._put_dataset(content)
        if (method, path) == ("POST", ITEMS):
            return self._put_item(content)
        if path.startswith(DATASETS + "/"):
            found = self.sets.get(path.removeprefix(DATASETS + "/"))
            return _not_found("Dataset") if found is None else (200, found)
        if path.startswith(ITEMS + "/"):
            return self._one_item(method, path.removeprefix(ITEMS + "/"))
        if path == ITEMS:
            return 200, self._items_of(query)
        rows = self._experiments() if path == EXPERIMENTS else self._experiment_items(query)
        return 200, {"data": rows, "meta": {}}

    def _put_dataset(self, content: Json) -> Json:
        now, name = _now(), content["name"]
        identity = {"id": f"dataset-{len(self.sets)}", "projectId": PROJECT, "name": name, "createdAt": now}
        known = self.sets.get(name, identity)
        fields = ("description", "metadata", "inputSchema", "expectedOutputSchema")
        self.sets[name] = {**known, **{key: content.get(key) for key in fields}, "updatedAt": now}
        return self.sets[name]

    def _put_item(self, content: Json) -> tuple[int, Json]:
        if (dataset := self.sets.get(content["datasetName"])) is None:
            return _not_found("Dataset")
        now, name = _now(), content.get("id") or f"item-{len(self.items)}"
        known = self.items.get(name)
        if known is not None and known["datasetId"] != dataset["id"]:
            return 400, {"message": f"Item {name} is of another dataset", "error": "InvalidRequestError"}
        fields = ("sourceTraceId", "sourceObservationId", "input", "expectedOutput", "metadata")
        self.items[name] = {
            "id": name,
            "datasetId": dataset["id"],
            "datasetName": dataset["name"],
            "status": content.get("status") or "ACTIVE",
            **{key: content.get(key) for key in fields},
            "createdAt": known["createdAt"] if known else now,
            "updatedAt": now,
            "mediaReferences": [],
        }
        return 200, self.items[name]

    def _one_item(self, method: str, name: str) -> tuple[int, Json]:
        if name not in self.items:
            return _not_found("Dataset item")
        if method == "DELETE":
            del self.items[name]
            return 200, {"message": "Dataset item successfully deleted"}
        return 200, self.items[name]

    def _items_of(self, query: dict[str, list[str]]) -> Json:
        wanted = query.get("datasetName", [""])[-1]
        found = [item for item in reversed(self.items.values()) if item["datasetName"] == wanted]
        page, limit = int(query.get("page", ["1"])[-1]), int(query.get("limit", ["50"])[-1])
        meta = {"page": page, "limit": limit, "totalItems": len(found), "totalPages": -(-len(found) // limit)}
        return {"data": found[(page - 1) * limit : page * limit], "meta": meta}

    def _experiments(self) -> list[Json]:
        found: dict[str, list[Json]] = {}
        for span in self.spans.values():
            found.setdefault(span["experiment"]["id"], []).append(span)
        rows = [
            {
                "id": identity,
                "name": spans[0]["experiment"]["name"],
                "description": spans[0]["experiment"].get("description", ""),
                "startTime": min(span["startTime"] for span in spans),
                "endTime": max(span["endTime"] for span in spans),
                "itemCount": len({span["experiment"]["item.id"] for span in spans}),
                "datasetId": spans[0]["experiment"].get("dataset.id"),
            }
            for identity, spans in found.items()
        ]
        return sorted(rows, key=lambda row: str(row["startTime"]), reverse=True)

    def _experiment_items(self, query: dict[str, list[str]]) -> list[Json]:
        """The spans that an experiment names as an item's root."""
        wanted = query.get("experimentId")
        rows = []
        for span in self.spans.values():
            experiment = span["experiment"]
            if experiment["item.root_observation_id"] != span["id"] or (wanted and experiment["id"] not in wanted):
                continue
            rows.append(
                {name: value for name, value in span.items() if name != "experiment"}
                | {
                    "experimentId": experiment["id"],
                    "experimentName": experiment["name"],
                    "experimentItemId": experiment["item.id"],
                    "experimentDatasetId": experiment.get("dataset.id"),
                    "experimentItemVersion": experiment.get("item.version"),
                }
            )
        return sorted(rows, key=lambda row: str(row["startTime"]), reverse=True)


def _not_found(what: str) -> tuple[int, Json]:
    return 404, {"message": f"{what} not found", "error": "LangfuseNotFoundError"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
