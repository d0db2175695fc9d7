"""Records: one logged request and its response, in the log schema, checked and made canonical.

What belongs here: what a valid record is, the reason for every refusal, and the canonical bytes and hash of a record.
What does not: files and stores (`resources.ingest`, `resources.trace_stores`), and whether a workload is supported:
image and audio messages are valid records, the workload profile judges them.
"""

from flywheel_assets.core.records.parse import (
    canonical_body,
    oversize_reject,
    parse_content,
    parse_record,
    reject_line,
)
from flywheel_assets.core.records.types import DEFAULT_SOURCE, Record, Reject, RejectReason

__all__ = [
    "DEFAULT_SOURCE",
    "Record",
    "Reject",
    "RejectReason",
    "canonical_body",
    "oversize_reject",
    "parse_content",
    "parse_record",
    "reject_line",
]
