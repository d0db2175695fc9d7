"""Health: what `flywheel doctor` says about Elasticsearch. Never a credential, only whether there is one."""

from __future__ import annotations

from typing import NamedTuple

from flywheel_assets.resources.trace_stores.base import TraceStoreError
from flywheel_assets.resources.trace_stores.deadline import bounded
from flywheel_assets.resources.trace_stores.elasticsearch import open_store
from flywheel_assets.resources.trace_stores.elasticsearch.connection import (
    Connection,
    ElasticsearchRefused,
    client_version,
    version_advice,
)
from flywheel_assets.settings import ElasticsearchSettings

# A person waits for the answer.
_PATIENCE_S = 5.0


class Health(NamedTuple):
    """Whether the store can be used, what was found, and what to do next."""

    ok: bool
    found: str
    advice: str = ""


def examine_server(settings: ElasticsearchSettings) -> Health:
    """Reach for the server and the index that the settings name."""
    store = open_store(settings)
    try:
        with bounded(_PATIENCE_S):
            connection = store.connection
            server = server_version(connection)
            versions = f"server {server or 'serverless'}, client {client_version()}"
            place = f"{connection.url}, {versions}, {connection.access.credentials}"
            if server is not None and (advice := version_advice(server)):
                return Health(False, place, advice)
            if not _exists(connection, settings.index):
                if settings.read_only:
                    return Health(False, f"{place}: no index {settings.index}", "mend `elasticsearch.index`")
                return Health(True, f"{place}: no index {settings.index} yet", "`flywheel ingest FILE` creates it")
            summaries = store.workloads()
    except TraceStoreError as error:
        return Health(False, "Elasticsearch cannot be used", str(error))
    finally:
        store.close()
    records = sum(summary.count for summary in summaries)
    advice = "" if records else "`flywheel ingest FILE`" if not settings.read_only else "is `elasticsearch.fields` right?"
    if connection.access.in_the_clear:
        advice = "credentials travel unencrypted: use https:// in ELASTICSEARCH_URL"
    return Health(True, f"{place}: {records:,} records of {len(summaries)} workloads in {settings.index}", advice)


def server_version(connection: Connection) -> str | None:
    """The server's version; None for one that has none (serverless)."""
    version = connection.ask("asking for the version", lambda client: client.info()).get("version") or {}
    return None if version.get("build_flavor") == "serverless" else str(version.get("number"))


def _exists(connection: Connection, index: str) -> bool:
    try:
        return bool(connection.ask(f"looking at {index}", lambda client: client.indices.get(index=index)))
    except ElasticsearchRefused as error:
        if error.status == 404:
            return False
        raise
