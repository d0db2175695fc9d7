"""The Elasticsearch trace store against a real server over the wire, and what it does when that server fails."""

from __future__ import annotations

import pytest

from flywheel_assets.resources.trace_stores.elasticsearch import ElasticsearchTraceStore
from tests.elasticsearch_server import ElasticsearchServer, fresh_index
from tests.resources.test_local_trace_store import TraceStoreContract


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def store(server):
    store = ElasticsearchTraceStore(server.connection(), fresh_index())
    yield store
    store.close()


class TestElasticsearchTraceStore(TraceStoreContract):
    pass
