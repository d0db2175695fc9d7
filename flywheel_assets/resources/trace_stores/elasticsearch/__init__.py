"""Records in Elasticsearch: an index of our own, or one that a team already fills.

What belongs here: everything that speaks to Elasticsearch. What does not: what a trace store promises (`base`).
"""

from __future__ import annotations

from flywheel_assets.resources.trace_stores.elasticsearch.connection import (
    Access,
    Connection,
    ElasticsearchRefused,
    ElasticsearchUnavailable,
    IncompleteAnswer,
)
from flywheel_assets.resources.trace_stores.elasticsearch.existing import ExistingIndexStore
from flywheel_assets.resources.trace_stores.elasticsearch.mapping import FieldMap
from flywheel_assets.resources.trace_stores.elasticsearch.own import ElasticsearchTraceStore
from flywheel_assets.resources.trace_stores.elasticsearch.pulse import Pulse, Pulsing
from flywheel_assets.settings import ElasticsearchSettings

__all__ = [
    "Access",
    "Connection",
    "ElasticsearchRefused",
    "ElasticsearchTraceStore",
    "ElasticsearchUnavailable",
    "ExistingIndexStore",
    "FieldMap",
    "IncompleteAnswer",
    "Pulse",
    "Pulsing",
    "open_store",
]


def open_store(settings: ElasticsearchSettings) -> ElasticsearchTraceStore | ExistingIndexStore:
    """The store that the settings name. Nothing is asked, and the environment is not read, before its first use."""
    connection = Connection(Access.from_environment, timeout_s=settings.timeout_s, retry_s=settings.retry_s)
    if not settings.read_only:
        return ElasticsearchTraceStore(connection, settings.index)
    fields = FieldMap(settings.fields, client_id=settings.index, default_workload=settings.default_workload)
    return ExistingIndexStore(
        connection, settings.index, fields, ingested_at=settings.ingested_at, overlap_s=settings.overlap_s
    )
