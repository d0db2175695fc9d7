"""The keys of `elasticsearch`: where records lie when they lie in Elasticsearch."""

from __future__ import annotations

from pydantic import Field

from flywheel_assets.settings.section import Section


class ElasticsearchSettings(Section):
    """Records in Elasticsearch, read where `trace_store: elasticsearch`. The URL and the credentials come from the
    environment: ELASTICSEARCH_URL, ELASTICSEARCH_API_KEY, ELASTICSEARCH_CA_CERTS."""

    index: str = Field("flywheel-traces", description="Index, alias or data stream that holds the records.")
