"""Records for the tests of datasets: made through `parse_record`, as a trace store hands them over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from flywheel_assets.core.datasets import DatasetsSummary, RecordsSummary, SplitPolicy, build_datasets, update_records
from flywheel_assets.core.records import Record, parse_record

NOW = 2_000_000_000.0
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Stored:
    """A stored record, as trace stores hand them over."""

    seq: int
    id: str
    body: bytes


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A function tool with these parameters."""
    parameters = {"type": "object", "properties": properties or {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


def call(name: str, arguments: dict[str, Any] | None = None, call_id: str = "call_1") -> dict[str, Any]:
    """An assistant message that calls a tool."""
    function = {"name": name, "arguments": orjson.dumps(arguments or {"city": "Bern"}).decode()}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def log_line(number: int, **changes: Any) -> dict[str, Any]:
    """A log line: a weather request answered by a call. `messages`, `tools`, `answer` and envelope fields replace parts."""
    request: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": f"Weather in town {number}?"}]}
    request["tools"] = [tool("get_weather")]
    line: dict[str, Any] = {"id": f"t{number}", "timestamp": 1000.0 + number, "workload_id": "w", "client_id": "c"}
    answer = changes.pop("answer", None) or call("get_weather", {"city": str(number)})
    for name in ("messages", "tools", "tool_choice", "stream", "response_format", "modalities"):
        if name in changes:
            request[name] = changes.pop(name)
    if request["tools"] is None:
        del request["tools"]
    line["request"] = request
    line["response"] = {"model": "big-2026", "choices": [{"index": 0, "message": answer}]}
    return {**line, **changes}


def stored(lines: Iterable[dict[str, Any]]) -> list[Stored]:
    """Log lines as stored records; a line that is no record is stored as it is."""
    records = []
    for seq, line in enumerate(lines):
        body = orjson.dumps(line)
        parsed = parse_record(body, max_bytes=MAX_BYTES, received_at=NOW)
        records.append(Stored(seq, str(line.get("id")), parsed.body if isinstance(parsed, Record) else body))
    return records


class Workbench:
    """Versions of one workload's records and datasets, each made from the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = 0

    def path(self, kind: str, version: int | None = None) -> Path:
        """The folder of a version (default: the last) of `records`, `base` or `train`."""
        return self.folder / f"{self.versions if version is None else version}-{kind}"

    def _previous(self, kind: str) -> Path | None:
        return self.path(kind, self.versions - 1) if self.versions > 1 else None

    def records(self, lines: Sequence[dict[str, Any]], *, batch: int = 7, workers: int | None = 0) -> RecordsSummary:
        """Add a version of the records."""
        self.versions += 1
        records = stored(lines)
        batches = [records[start : start + batch] for start in range(0, len(records), batch)]
        return update_records(
            self._previous("records"), batches, self.path("records"), max_bytes=MAX_BYTES, workers=workers, received_at=NOW
        )

    def datasets(self, policy: SplitPolicy) -> DatasetsSummary:
        """Build the datasets of the last version of the records."""
        return build_datasets(
            self.path("records"),
            self._previous("base"),
            self.path("base"),
            self.path("train"),
            workload="w",
            policy=policy,
            previous_train=self._previous("train"),
        )

    def add(self, lines: Sequence[dict[str, Any]], policy: SplitPolicy) -> DatasetsSummary:
        """Add a version of the records and of the datasets."""
        self.records(lines)
        return self.datasets(policy)
