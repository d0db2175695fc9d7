"""`flywheel pull`: the sources read by a person's hand, with a cursor of its own for each.

What belongs here: the cursor files and the waiting. What does not: the sensors, whose cursors lie in Dagster's instance.
Both may read the same source, since the store keeps everything once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from flywheel_assets.resources.ingest import IngestReport
from flywheel_assets.resources.sources.base import TraceSource
from flywheel_assets.resources.sources.collect import collect
from flywheel_assets.resources.sources.registry import chosen_sources
from flywheel_assets.resources.trace_stores.base import TraceStore
from flywheel_assets.settings import Settings

# The cursor is written down this often; a killed command reads again what came after.
_ROUND_S = 20.0


def pull_by_hand(
    settings: Settings,
    store: TraceStore,
    names: tuple[str, ...] = (),
    *,
    again: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> IngestReport:
    """Read the named sources (none: all that are switched on) until each is read up; waits where a source asks to wait.

    `again` forgets how far earlier calls came. Raises SourceError; what was stored until then stays, and so do the cursors.
    """
    reports = [
        _read_up(source, settings, store, settings.home / "sources" / f"{source.name}.cursor", again, say)
        for source in chosen_sources(settings, names)
    ]
    return _total(reports)


def _read_up(
    source: TraceSource, settings: Settings, store: TraceStore, file: Path, again: bool, say: Callable[[str], None]
) -> IngestReport:
    cursor = None if again or not file.is_file() else file.read_text(encoding="utf-8")
    reports = []
    while True:
        collected = collect(
            source,
            store,
            cursor,
            deadline=time.monotonic() + _ROUND_S,
            max_bytes=settings.local.max_record_bytes,
        )
        cursor = collected.cursor
        _write(file, cursor)
        reports.append(collected.report)
        say(collected.sentence())
        if collected.failure is not None:
            raise collected.failure
        if collected.done and collected.resume_at is None:
            return _total(reports)
        if collected.resume_at is not None:
            time.sleep(max(0.0, collected.resume_at - time.time()))


def _write(file: Path, cursor: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(cursor, encoding="utf-8")
    draft.replace(file)


def _total(reports: list[IngestReport]) -> IngestReport:
    reasons: Counter[str] = Counter()
    workloads: Counter[str] = Counter()
    for report in reports:
        reasons.update(report.reasons)
        workloads.update(report.workloads)
    return IngestReport(
        sum(report.new for report in reports),
        sum(report.updated for report in reports),
        sum(report.duplicate for report in reports),
        sum(report.rejected for report in reports),
        dict(reasons.most_common()),
        dict(sorted(workloads.items())),
    )
