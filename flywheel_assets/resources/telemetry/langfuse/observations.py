"""Observations: what Langfuse keeps of a piece of work, and the OTLP request that tells it, in the form of SDK 5.

The attributes are those of `langfuse._client.attributes` (5.0.4) and of the recorded exchanges; a test compares them. Spans
are written here and not by a tracer because they lie in the past, and because their ids follow from what they tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from flywheel_assets.core.rows import Json

# Below what a server takes at once (4.5 MB), and little enough for one request's time limit.
REQUEST_BYTES = 1_000_000
# One row must not fill a request by itself.
SHOWN_CHARS = 100_000
_CREDENTIALS = re.compile(r"://[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Trace:
    """What is said of a whole trace; Langfuse wants it on every observation. `metadata` values are JSON."""

    id: str
    name: str
    environment: str
    session: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """A span, an event or an evaluator of a trace; times in epoch seconds, `input` and `output` text or JSON.

    `attributes` are OTLP attributes beside those that follow from the other fields, such as an experiment's.
    """

    trace: Trace
    id: str
    name: str
    started: float
    ended: float
    parent: str | None = None
    kind: str = "span"
    level: str | None = None
    message: str | None = None
    input: Any = None
    output: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


def requests_of(observations: Iterable[Observation], public_key: str) -> Iterator[tuple[int, bytes]]:
    """OTLP requests that tell the observations, each with how many it tells."""
    waiting: list[Span] = []
    size = 0
    for observation in observations:
        span = _span(observation)
        if waiting and size + span.ByteSize() > REQUEST_BYTES:
            yield len(waiting), _request(waiting, public_key)
            waiting, size = [], 0
        waiting.append(span)
        size += span.ByteSize()
    if waiting:
        yield len(waiting), _request(waiting, public_key)


def _request(spans: Sequence[Span], public_key: str) -> bytes:
    scope = InstrumentationScope(
        name="langfuse-sdk", version=version("langfuse"), attributes=_pairs({"public_key": public_key})
    )
    resource = Resource(attributes=_pairs({"service.name": "flywheel_assets"}))
    content = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)])
    return bytes(ExportTraceServiceRequest(resource_spans=[content]).SerializeToString())


def _span(observation: Observation) -> Span:
    return Span(
        trace_id=bytes.fromhex(observation.trace.id),
        span_id=bytes.fromhex(observation.id),
        parent_span_id=bytes.fromhex(observation.parent or ""),
        name=observation.name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=int(observation.started * 1e9),
        end_time_unix_nano=int(max(observation.started, observation.ended) * 1e9),
        attributes=_pairs(attributes_of(observation)),
    )


def attributes_of(observation: Observation) -> dict[str, Any]:
    """The OTLP attributes of an observation; what is None or empty is left out."""
    trace = observation.trace
    found: dict[str, Any] = {
        "langfuse.environment": trace.environment,
        "langfuse.trace.name": trace.name,
        "session.id": trace.session or None,
        "langfuse.trace.tags": list(trace.tags) or None,
        **_metadata("langfuse.trace.metadata.", trace.metadata),
        "langfuse.observation.type": observation.kind,
        "langfuse.observation.level": observation.level,
        "langfuse.observation.status_message": observation.message,
        "langfuse.observation.input": text_of(observation.input),
        "langfuse.observation.output": text_of(observation.output),
        **_metadata("langfuse.observation.metadata.", observation.metadata),
        **observation.attributes,
    }
    if observation.parent is None:
        found["langfuse.internal.is_app_root"] = True
    return {name: value for name, value in found.items() if value is not None}


def text_of(value: Any) -> str | None:
    """A value as an attribute: text as it is, anything else as JSON; a very long one is cut."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " ... (cut)"


def without_credentials(text: str) -> str:
    """A text without the user and password that a URL in it may hold."""
    return _CREDENTIALS.sub("://", text)


def _metadata(prefix: str, metadata: Mapping[str, Any]) -> Json:
    # SDK 5 encodes text as well, and the server decodes it: "12" stays text.
    return {prefix + name: json.dumps(value) for name, value in metadata.items() if value is not None}


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    # A model can write half a surrogate pair, which protobuf refuses.
    return AnyValue(string_value=str(value).encode("utf-8", "replace").decode())
