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
from flywheel_assets.resources.trace_stores.elasticsearch.own import ElasticsearchTraceStore
from flywheel_assets.resources.trace_stores.elasticsearch.pulse import Pulse, Pulsing

__all__ = [
    "Access",
    "Connection",
    "ElasticsearchRefused",
    "ElasticsearchTraceStore",
    "ElasticsearchUnavailable",
    "IncompleteAnswer",
    "Pulse",
    "Pulsing",
]
