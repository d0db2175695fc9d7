"""OTLP spans as Langfuse observations, for the test server: what a 4.16 server made of the recorded spans.

What belongs here: protobuf in, rows as the API answers them out. What does not: HTTP.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Json = dict[str, Any]

PROJECT = "proj1"
# US dollars a token: the price list of the recorded server.
PRICES = {"gpt-4o-mini": (1.5e-7, 6e-7)}
_EXPERIMENT = "langfuse.experiment."
_OBSERVATION, _TRACE = "langfuse.observation.", "langfuse.trace."
_OWN_ATTRIBUTES = ("langfuse.", "user.id", "session.id", "gen_ai.")


def observations_of(body: bytes) -> list[Json]:
    """The rows of an OTLP request."""
    request = ExportTraceServiceRequest.FromString(body)
    rows = []
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = {f"scope.attributes.{k}": v for k, v in _attributes(scope_spans.scope.attributes).items()}
            scope |= {"scope.version": scope_spans.scope.version, "scope.name": scope_spans.scope.name}
            background = {**scope, **{f"resourceAttributes.{k}": v for k, v in resource.items()}}
            rows += [_row(span, resource, background) for span in scope_spans.spans]
    return rows


def experiment_spans_of(body: bytes) -> list[Json]:
    """The spans of an OTLP request that belong to an experiment, each with its experiment attributes."""
    rows = []
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for span in (span for scope_spans in resource_spans.scope_spans for span in scope_spans.spans):
            found = _attributes(span.attributes)
            experiment = {k.removeprefix(_EXPERIMENT): v for k, v in found.items() if k.startswith(_EXPERIMENT)}
            if "id" in experiment:
                shown = ("id", "traceId", "startTime", "endTime", "level", "environment")
                row = _row(span, resource, {})
                rows.append({name: row[name] for name in shown} | {"experiment": experiment})
    return rows


def _row(span: Span, resource: Json, background: Json) -> Json:
    found = _attributes(span.attributes)
    model = found.get(_OBSERVATION + "model.name") or found.get("gen_ai.response.model") or found.get("gen_ai.request.model")
    usage = _usage(found)
    cost = _cost(model, usage)
    start, end = span.start_time_unix_nano // 1_000_000, span.end_time_unix_nano // 1_000_000
    kind = str(found.get(_OBSERVATION + "type") or ("generation" if model else "span")).upper()
    level = found.get(_OBSERVATION + "level") or ("ERROR" if span.status.code == 2 else "DEFAULT")
    return {
        "id": span.span_id.hex(),
        "traceId": span.trace_id.hex(),
        "startTime": _iso(start),
        "endTime": _iso(end),
        "projectId": PROJECT,
        "parentObservationId": span.parent_span_id.hex() or None,
        "type": kind,
        "name": span.name,
        "level": level,
        "statusMessage": found.get(_OBSERVATION + "status_message") or span.status.message or "",
        "version": found.get("langfuse.version", ""),
        "environment": found.get("langfuse.environment") or resource.get("langfuse.environment", "default"),
        "completionStartTime": _loaded(found.get(_OBSERVATION + "completion_start_time")),
        "createdAt": _iso(end),
        "updatedAt": _iso(end),
        "input": _text(found.get(_OBSERVATION + "input", found.get("gen_ai.input.messages"))),
        "output": _text(found.get(_OBSERVATION + "output", found.get("gen_ai.output.messages"))),
        "metadata": {**_metadata(found), **background},
        "model": model,
        "internalModelId": None,
        "modelParameters": _loaded(found.get(_OBSERVATION + "model.parameters")) or {},
        "usageDetails": usage,
        "inputUsage": usage.get("input"),
        "outputUsage": usage.get("output"),
        "totalUsage": usage.get("total"),
        "costDetails": cost,
        "inputCost": cost.get("input"),
        "outputCost": cost.get("output"),
        "totalCost": cost.get("total"),
        "promptId": "",
        "promptName": found.get(_OBSERVATION + "prompt.name", ""),
        "promptVersion": found.get(_OBSERVATION + "prompt.version"),
        "usagePricingTierId": None,
        "usagePricingTierName": None,
        "latency": (end - start) / 1000 or None,
        "timeToFirstToken": None,
        "userId": found.get("user.id", ""),
        "sessionId": found.get("session.id", ""),
        "isRootObservation": not span.parent_span_id or bool(found.get("langfuse.internal.is_app_root")),
        "traceName": found.get(_TRACE + "name") or span.name,
        "release": found.get("langfuse.release", ""),
        "tags": found.get(_TRACE + "tags", []),
        "bookmarked": False,
        "public": False,
        "modelId": None,
        "inputPrice": None,
        "outputPrice": None,
        "totalPrice": None,
    }


def _metadata(found: Json) -> Json:
    """Metadata of the trace and of the observation; what nobody claims stands under `attributes.`."""
    metadata: Json = {}
    for prefix in (_TRACE + "metadata.", _OBSERVATION + "metadata."):
        metadata |= {k.removeprefix(prefix): _loaded(v) for k, v in found.items() if k.startswith(prefix)}
    left = {k: v for k, v in found.items() if not k.startswith(_OWN_ATTRIBUTES) or k.startswith("gen_ai.tool.")}
    left |= {k: v for k, v in found.items() if k == "gen_ai.system_instructions"}
    return metadata | {f"attributes.{k}": v for k, v in left.items()}


def _usage(found: Json) -> Json:
    usage: Json = _loaded(found.get(_OBSERVATION + "usage_details")) or {}
    usage = {k: v for k, v in usage.items() if isinstance(v, int)}
    for ours, theirs in (("input", "prompt_tokens"), ("output", "completion_tokens"), ("total", "total_tokens")):
        if theirs in usage:
            usage[ours] = usage.pop(theirs)
    for ours, theirs in (("input", "gen_ai.usage.input_tokens"), ("output", "gen_ai.usage.output_tokens")):
        if theirs in found:
            usage[ours] = int(found[theirs])
    if usage and "total" not in usage:
        usage["total"] = sum(usage.values())
    return usage


def _cost(model: str | None, usage: Json) -> Json:
    if model not in PRICES or not usage:
        return {}
    cost = {"input": usage.get("input", 0) * PRICES[model][0], "output": usage.get("output", 0) * PRICES[model][1]}
    return {**cost, "total": sum(cost.values())}


def _attributes(pairs: Any) -> Json:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def _loaded(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"
