"""Scores: numbers and words on a trace, a row or an experiment, in the form of SDK 5 and in that of SDK 4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.telemetry.langfuse.identity import digest

# A score takes some 300 bytes of the megabyte that the server accepts.
SCORES_A_REQUEST = 500


@dataclass(frozen=True, slots=True)
class Score:
    """One score of a `trace` (of one `observation` in it) or of an `experiment`; `at` in epoch seconds."""

    name: str
    value: float | str
    at: float
    environment: str
    trace: str | None = None
    observation: str | None = None
    experiment: str | None = None
    comment: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> Json:
        """As the API takes it. Told again it has the same id, and replaces itself."""
        of_what = self.observation or self.trace or self.experiment
        found = {
            "id": digest(f"{of_what}/{self.name}/{self.environment}"),
            "traceId": self.trace,
            "observationId": self.observation,
            "datasetRunId": self.experiment,
            "name": self.name,
            "value": self.value,
            "dataType": "CATEGORICAL" if isinstance(self.value, str) else "NUMERIC",
            "comment": self.comment,
            "metadata": dict(self.metadata) or None,
            "environment": self.environment,
            "timestamp": iso(self.at),
        }
        return {name: value for name, value in found.items() if value is not None}


def requests_of(scores: Sequence[Score]) -> Iterator[list[Json]]:
    """Lists of scores as SDK 5 posts them."""
    for begin in range(0, len(scores), SCORES_A_REQUEST):
        yield [score.to_json() for score in scores[begin : begin + SCORES_A_REQUEST]]


def as_events(scores: Sequence[Json], sdk: str) -> Json:
    """The same as a batch of events, which is how SDK 4 posts them and what a server takes that refuses lists."""
    events = [
        {"id": digest(f"event/{score['id']}", 32), "type": "score-create", "timestamp": score["timestamp"], "body": score}
        for score in scores
    ]
    return {"batch": events, "metadata": {"batch_size": len(events), "sdk_name": "python", "sdk_version": sdk}}


def iso(at: float) -> str:
    """Epoch seconds as the API writes instants."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
