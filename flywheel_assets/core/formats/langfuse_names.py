"""Who a Langfuse generation belongs to: its workload by a rule, its client, and the metadata both stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_assets.core.formats.langfuse_fields import parsed
from flywheel_assets.core.rows import Json

WORKLOAD_FROM = ("tag:workload:", "metadata:workload_id", "trace_name", "name")
CLIENT_KEY = "client_id"
# Metadata this conversion reads; Langfuse cuts values at 200 characters unless they are asked for by name.
METADATA_KEYS = (
    CLIENT_KEY,
    "response_format",
    "finish_reason",
    "gen_ai.tool.definitions",
    "gen_ai.system_instructions",
    "attributes.gen_ai.tool.definitions",
    "attributes.gen_ai.system_instructions",
    "attributes",
)

_RULE_FIELDS = {
    "trace_name": "traceName",
    "name": "name",
    "prompt_name": "promptName",
    "environment": "environment",
    "model": "model",
}


def workload_of(observation: Json, rules: Sequence[str] = WORKLOAD_FROM) -> str | None:
    """The workload id of an observation by the first rule that gives one; None where none does."""
    for rule in rules:
        if found := _by_rule(observation, rule):
            return found
    return None


def client_of(observation: Json) -> str:
    """The application: `client_id` of the metadata, else the traced service's name, else `langfuse`."""
    metadata = metadata_of(observation)
    service = metadata.get("resourceAttributes.service.name")
    if isinstance(service, str) and service.startswith("unknown_service"):
        service = None
    return str(metadata.get(CLIENT_KEY) or service or "langfuse")


def metadata_of(observation: Json) -> Mapping[str, Any]:
    """The metadata of an observation; empty where there is none."""
    metadata = parsed(observation.get("metadata"))
    return metadata if isinstance(metadata, dict) else {}


def gen_ai_attribute(metadata: Mapping[str, Any], name: str) -> Any:
    """A `gen_ai` attribute that Langfuse left in the metadata: flat, or under `attributes`."""
    nested = parsed(metadata.get("attributes"))
    for key in (f"gen_ai.{name}", f"attributes.gen_ai.{name}"):
        if key in metadata:
            return metadata[key]
    return nested.get(f"gen_ai.{name}") if isinstance(nested, dict) else None


def _by_rule(observation: Json, rule: str) -> str | None:
    kind, _, argument = rule.partition(":")
    if kind == "tag":
        given = observation.get("tags")
        tags = [tag for tag in given if isinstance(tag, str)] if isinstance(given, list) else []
        found = next((tag.removeprefix(argument) for tag in tags if tag.startswith(argument)), "")
        return found.strip() or None
    value = metadata_of(observation).get(argument) if kind == "metadata" else observation.get(_RULE_FIELDS.get(rule, ""))
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip() or None
    return None
