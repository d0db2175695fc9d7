"""Trace stores: where records wait, in the order they came in.

What belongs here: what every trace store promises (`base`) and one module a store. What does not: reading logs
(`resources.ingest`) and turning records into datasets (`assets`).
"""

from flywheel_assets.resources.trace_stores.base import (
    START,
    AddResult,
    RejectCount,
    RejectedLine,
    StoredRecord,
    TraceStore,
    TraceStoreBusy,
    TraceStoreCorrupt,
    TraceStoreError,
    UnknownWatermark,
    WorkloadSummary,
)
from flywheel_assets.resources.trace_stores.local import LocalTraceStore

__all__ = [
    "START",
    "AddResult",
    "LocalTraceStore",
    "RejectCount",
    "RejectedLine",
    "StoredRecord",
    "TraceStore",
    "TraceStoreBusy",
    "TraceStoreCorrupt",
    "TraceStoreError",
    "UnknownWatermark",
    "WorkloadSummary",
]
