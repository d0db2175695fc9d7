"""The keys of `elasticsearch`: where records lie when they lie in Elasticsearch."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from flywheel_assets.settings.section import Section

# What a field of somebody else's documents may become: a field of the log schema, or a place inside its objects.
ENVELOPE_FIELDS = (
    "id",
    "workload_id",
    "client_id",
    "timestamp",
    "request",
    "response",
    "session_id",
    "source",
    "feedback",
    "latency_ms",
    "cost_usd",
)
_WITH_PLACES_INSIDE = ("request", "response", "feedback")
_INDEX_NAME = re.compile(r"[^\s\\/?\"<>|#A-Z,_+-][^\s\\/?\"<>|#A-Z]*")


class ElasticsearchSettings(Section):
    """Records in Elasticsearch, read where `trace_store: elasticsearch`. The URL and the credentials come from the
    environment: ELASTICSEARCH_URL, ELASTICSEARCH_API_KEY, ELASTICSEARCH_CA_CERTS."""

    index: str = Field("flywheel-traces", description="Index, alias or data stream that holds the records.")
    read_only: bool = Field(
        False, description="true: the index is somebody else's; it is read by `fields`, and never written to or created."
    )
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="With read_only: log-schema field -> dotted path in your documents, such as `request: body.request`; "
        "a field that is not named is read under its own name.",
    )
    ingested_at: str = Field(
        "@timestamp",
        min_length=1,
        description="With read_only: the date field by which documents arrive, best one that is set at ingestion "
        "(`event.ingested`).",
    )
    overlap_s: float = Field(
        300,
        ge=1,
        le=86_400,
        description="With read_only: seconds by which a document may become visible after newer ones and still be read.",
    )
    default_workload: str | None = Field(
        None, min_length=1, max_length=512, description="With read_only: the workload of documents that name none."
    )
    timeout_s: float = Field(30, gt=0, le=600, description="Seconds one request may take.")
    retry_s: float = Field(
        60,
        ge=0,
        le=3600,
        description="Seconds for which 429, 502, 503, 504, time-outs and lost connections are retried.",
    )

    @field_validator("index")
    @classmethod
    def _one_index_name(cls, value: str) -> str:
        if not _INDEX_NAME.fullmatch(value):
            raise ValueError("must be a lower-case index name, alias, data stream or pattern, without commas or spaces")
        return value

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            first, _, inside = name.partition(".")
            if first not in ENVELOPE_FIELDS or (inside and first not in _WITH_PLACES_INSIDE):
                raise ValueError(f"unknown field '{name}'; known are {', '.join(ENVELOPE_FIELDS)}")
            if not path:
                raise ValueError(f"'{name}' needs the path of a field")
        return value

    @model_validator(mode="after")
    def _foreign_names_are_read_only(self) -> ElasticsearchSettings:
        if self.read_only:
            return self
        named = {"fields", "ingested_at", "overlap_s", "default_workload"} & self.model_fields_set
        if named:
            raise ValueError(f"{', '.join(sorted(named))}: only for an index that is not ours; set `read_only: true`")
        if "*" in self.index:
            raise ValueError("`index` with a `*` can only be read; set `read_only: true`")
        return self
