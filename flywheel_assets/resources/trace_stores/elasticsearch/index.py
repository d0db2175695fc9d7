"""Our own index: its mapping, and making sure that it is there and is ours.

What belongs here: templates, mappings, creation. What does not: what is written (`own`, `writing`).

Three kinds of documents share one index, so that whoever deletes or restores it takes all of them: records, commits (which
batches of a workload count, in order) and intents (a batch that somebody is writing). Bodies are kept as they are and never
looked into: no field of a request can collide with the mapping, and nothing of them is searchable.
"""

from __future__ import annotations

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import TraceStoreCorrupt
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection, ElasticsearchRefused

SCHEMA = 1
RECORD, COMMIT, INTENT = "record", "commit", "intent"

_KEYWORD: Json = {"type": "keyword"}
_STORED: Json = {"type": "keyword", "index": False, "doc_values": False}
RECORDS_MAPPING: Json = {
    "dynamic": "strict",
    "_meta": {"flywheel_assets": {"holds": "records", "schema": SCHEMA}},
    "properties": {
        "kind": _KEYWORD,
        "workload": _KEYWORD,
        "workload_id": _KEYWORD,
        "ingested_at": {"type": "date"},
        # Of a record: the batch that wrote it, and its place there.
        "batch": _KEYWORD,
        "position": {"type": "integer"},
        "id": _KEYWORD,
        "timestamp": {"type": "date"},
        "session_id": _KEYWORD,
        "source": _KEYWORD,
        "content_hash": _STORED,
        # JSON text, byte for byte as it was taken in.
        "body": {"type": "object", "enabled": False},
        # Of a commit: its number, 1 and up without gaps, and the batches it lets in.
        "commit": {"type": "long"},
        "batches": _KEYWORD,
    },
}
REJECTS_MAPPING: Json = {
    "dynamic": "strict",
    "_meta": {"flywheel_assets": {"holds": "rejects", "schema": SCHEMA}},
    "properties": {
        "workload": _KEYWORD,
        "reason": _KEYWORD,
        "rejected_at": {"type": "date"},
        "detail": _STORED,
        "excerpt": _STORED,
        "origin": _STORED,
        "line_number": {"type": "long", "index": False},
    },
}
# Above templates of whoever has a pattern like `*` or `flywheel-*`.
_PRIORITY = 500


def ensure_index(connection: Connection, index: str, mapping: Json) -> None:
    """Create `index` with its template unless it is there; TraceStoreCorrupt where it is there and not ours."""
    if identify(connection, index, mapping) is not None:
        return
    what = f"creating {index}"
    template: Json = {"settings": {"index": {"codec": "best_compression"}}, "mappings": mapping}
    connection.ask(
        what,
        lambda client: client.indices.put_index_template(
            name=index, index_patterns=[index], priority=_PRIORITY, template=template
        ),
    )
    try:
        connection.ask(what, lambda client: client.indices.create(index=index))
    except ElasticsearchRefused as error:
        # Somebody else was quicker, or an answer was lost.
        if error.kind != "resource_already_exists_exception":
            raise
    if identify(connection, index, mapping) is None:
        raise TraceStoreCorrupt(f"{connection.url}: {index} was created and is gone again; is somebody deleting indices?")


def identify(connection: Connection, index: str, mapping: Json) -> str | None:
    """The UUID of our index behind the name or alias `index`; None where there is none."""
    try:
        found = connection.ask(f"looking at {index}", lambda client: client.indices.get(index=index, flat_settings=True))
    except ElasticsearchRefused as error:
        if error.status == 404:
            return None
        raise
    if len(found) != 1:
        raise TraceStoreCorrupt(
            f"{connection.url}: {index} stands for {len(found)} indices; the trace store writes by id and needs exactly one."
        )
    (described,) = found.values()
    ours = (described.get("mappings", {}).get("_meta") or {}).get("flywheel_assets")
    wanted = mapping["_meta"]["flywheel_assets"]
    if ours != wanted:
        raise TraceStoreCorrupt(
            f"{connection.url}: {index} exists and is {'of another version' if ours else 'not ours'} (found {ours}, expected"
            f" {wanted}). It was left alone. Name another `elasticsearch.index`, or read it with `read_only: true`."
        )
    return str(described["settings"]["index.uuid"])
