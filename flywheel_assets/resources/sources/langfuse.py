"""Langfuse as a source: the generations of a project as records, with late arrivals and late feedback.

What belongs here: the order of a sweep (scores of the window, its generations page by page, traces scored late) and what
becomes of each row. What does not: the API (`langfuse_api`), the conversion (`core.formats.langfuse`), storing (`collect`).

The scores of a window are held in this process while its pages are read. A new process that goes on in mid-window fetches
them again first: a record must never be written without the feedback it had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from flywheel_assets.core.formats import FormatError
from flywheel_assets.core.formats.langfuse import METADATA_KEYS, record_of, workload_of
from flywheel_assets.core.rows import Json
from flywheel_assets.core.slugs import BadWorkloadId, workload_slug
from flywheel_assets.resources.sources.base import Pull, PulledRecord, PulledReject, SourceError, SourceStatus
from flywheel_assets.resources.sources.langfuse_api import (
    OWN_ENVIRONMENT,
    Access,
    AskedToWait,
    BadRequest,
    LangfuseCalls,
    instant,
    sdk_version,
    skew,
)
from flywheel_assets.resources.sources.langfuse_cursor import Place, place_of
from flywheel_assets.resources.sources.langfuse_scores import ScoreBook, epoch
from flywheel_assets.settings import LangfuseSettings, Settings

# Traces read again in one step; each costs a call.
LATE_TRACES_A_STEP = 10
# Langfuse's own generations (judges) and experiments are no production traffic.
NOT_TRAFFIC = ("langfuse", "sdk-experiment")

log = logging.getLogger(__name__)


def langfuse_source(settings: Settings) -> LangfuseSource | None:
    """The source where `langfuse.enabled` is set. Keys are looked at with the first pull."""
    return LangfuseSource(settings.langfuse) if settings.langfuse.enabled else None


@dataclass
class LangfuseSource:
    """Reads one project; `now` is the clock (epoch seconds)."""

    settings: LangfuseSettings
    now: Callable[[], float] = time.time
    name: str = "langfuse"
    _calls: LangfuseCalls | None = field(default=None, repr=False)
    _greeted: bool = field(default=False, repr=False)
    _book: ScoreBook | None = field(default=None, repr=False)
    _late_book: tuple[tuple[str, ...], ScoreBook] | None = field(default=None, repr=False)
    _read_again: tuple[float, float] | None = field(default=None, repr=False)

    def pull(self, cursor: str | None, *, deadline: float) -> Pull:
        """One page of generations, or a few traces whose scores came late. See `TraceSource.pull`."""
        place = self._first_place() if cursor is None else place_of(cursor)
        if place.wait_until is not None:
            if (wait := place.wait_until - self.now()) > 0:
                note = f"asked to wait {wait:.0f} s more (rate limit), going on then"
                return Pull(place.text(), note=note, resume_at=place.wait_until)
            place = replace(place, wait_until=None)
        if place.end is None:
            place = replace(place, end=self.now())
        try:
            self._greet()
            return self._window_step(place, deadline) if place.late is None else self._late_step(place, deadline)
        except AskedToWait as wait_for:
            return Pull(place.waiting(wait_for.until).text(), note=wait_for.why, resume_at=wait_for.until)

    def check(self) -> SourceStatus:
        """Whether the project is reachable and the keys are right, the server's version, and what will not work with it."""
        try:
            version, project = self._who()
        except SourceError as error:
            return SourceStatus(False, str(error), "see docs/langfuse.md")
        except AskedToWait as wait_for:
            return SourceStatus(True, f"{self._client().base_url}: {wait_for.why}")
        found = f"project '{project}' at {self._client().base_url}, server {version}, SDK {sdk_version()}"
        return SourceStatus(True, found, skew(version))

    def _window_step(self, place: Place, deadline: float) -> Pull:
        assert place.end is not None
        window = (place.start, place.end)
        book = self._window_book(window, deadline)
        if book is None or time.monotonic() >= deadline:
            return Pull(place.text(), done=False, note="reading scores")
        try:
            page = self._observations(
                cursor=place.page, from_start_time=instant(window[0]), to_start_time=instant(window[1])
            )
        except BadRequest:
            if place.page is None or self._read_again == window:
                raise
            # A page cursor may not outlive an update of the server: the window is read again, and stores nothing twice.
            self._read_again = window
            return Pull(replace(place, page=None).text(), done=False, note="reading the window again")
        rows = self._wanted(page.get("data"))
        book.saw(rows)
        records, rejects, running = self._converted(rows, book, still_open_from=place.end - self._overlap)
        following = _next_page(page)
        if following is not None and following == place.page:
            raise SourceError(
                f"Langfuse at {self._client().base_url} answers one page again and again; nothing was skipped."
            )
        note = f"reading {_clock(window[0])} to {_clock(window[1])}" + (f", {running} still running" if running else "")
        if following is not None:
            return Pull(replace(place, page=following).text(), records, rejects, done=False, note=note)
        late = book.late_traces(place.applied, certain_from=place.start + self._overlap / 3)
        # The next sweep reads scores from here on again.
        applied = book.digests(since=place.end - 2 * self._overlap)
        after = replace(place, page=None, late=late, applied=applied)
        if late:
            return Pull(after.text(), records, rejects, done=False, note=f"{len(late)} traces have new scores")
        return self._swept(after, records, rejects)

    def _late_step(self, place: Place, deadline: float) -> Pull:
        traces = (place.late or ())[:LATE_TRACES_A_STEP]
        if not traces:
            return self._swept(place, (), ())
        book = self._book_of(traces, deadline)
        if book is None:
            return Pull(place.text(), done=False, note=f"reading new scores of {len(place.late or ())} traces")
        records: list[PulledRecord] = []
        rejects: list[PulledReject] = []
        done, page, begun = 0, place.page, False
        wait: AskedToWait | None = None
        while done < len(traces) and (not begun or time.monotonic() < deadline):
            try:
                rows, page = self._trace_step(traces[done], page)
            except AskedToWait as asked:
                if not begun:
                    raise
                wait = asked
                break
            found, refused, _ = self._converted(rows, book, still_open_from=self.now() - self._overlap)
            records += found
            rejects += refused
            done, begun = done + (page is None), True
        rest = replace(place, late=(place.late or ())[done:], page=page)
        if wait is not None:
            return Pull(rest.waiting(wait.until).text(), records, rejects, note=wait.why, resume_at=wait.until)
        if rest.late:
            return Pull(rest.text(), records, rejects, done=False, note=f"{len(rest.late)} traces have new scores")
        return self._swept(rest, records, rejects)

    def _swept(self, place: Place, records: Iterable[PulledRecord], rejects: Iterable[PulledReject]) -> Pull:
        """The end of a sweep: the next one begins where late arrivals are still expected."""
        assert place.end is not None
        self._book = self._late_book = None
        following = Place(start=max(place.start, place.end - self._overlap), applied=place.applied)
        return Pull(following.text(), tuple(records), tuple(rejects), note=f"read up to {_clock(place.end)} UTC")

    def _converted(
        self, rows: list[Json], book: ScoreBook, *, still_open_from: float
    ) -> tuple[list[PulledRecord], list[PulledReject], int]:
        """Records, refused rows, and how many generations still run and will be seen again."""
        records: list[PulledRecord] = []
        rejects: list[PulledReject] = []
        running = 0
        for row in rows:
            if not row.get("endTime") and (epoch(row.get("startTime")) or 0.0) >= still_open_from:
                running += 1
                continue
            link = self._link(row)
            try:
                record = record_of(
                    row,
                    workload_from=self.settings.workload_from,
                    source=self.settings.source,
                    feedback=book.feedback(row),
                    url=link,
                )
            except FormatError as error:
                rejects.append(self._reject(row, error, link))
            else:
                records.append(PulledRecord(record, link))
        return records, rejects, running

    def _reject(self, row: Json, error: FormatError, link: str) -> PulledReject:
        workload = workload_of(row, self.settings.workload_from)
        try:
            slug = None if workload is None else workload_slug(workload)
        except BadWorkloadId:
            slug = None
        return PulledReject(str(row.get("id")), error.reason, error.detail, link, link, slug)

    def _wanted(self, rows: Any) -> list[Json]:
        """Rows of the environments that are read, each once."""
        chosen: dict[str, Json] = {}
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict):
                continue
            environment = str(row.get("environment") or "default")
            only = self.settings.environments
            if environment in only if only else _is_traffic(environment):
                chosen[str(row.get("id"))] = row
        return list(chosen.values())

    def _window_book(self, window: tuple[float, float], deadline: float) -> ScoreBook | None:
        """The scores that may belong to the window's generations; None while time was too short to read them all."""
        if self._book is None or self._book.window != window:
            self._book = ScoreBook(window, self.settings.feedback_score, self.settings.correction_score)
        while not self._book.complete:
            if time.monotonic() >= deadline:
                return None
            # An overlap earlier than the window: a clock that is behind must not take a record's feedback away.
            since = window[0] - self._overlap
            self._fill(self._book, from_timestamp=instant(since), to_timestamp=instant(window[1]))
        return self._book

    def _fill(self, book: ScoreBook, **query: Any) -> None:
        names = [name for name in (book.score_name, book.correction_name) if name]
        if not names:
            book.complete = True
            return
        page = self._client().scores(name=",".join(names), cursor=book.page, **query)
        scores = page.get("data")
        book.add(score for score in (scores if isinstance(scores, list) else ()) if isinstance(score, dict))
        book.page = _next_page(page)
        book.complete = book.page is None

    def _book_of(self, traces: tuple[str, ...], deadline: float) -> ScoreBook | None:
        """The scores of some traces; None while time was too short to read them all. Reads a page at least."""
        if self._late_book is None or self._late_book[0] != traces:
            self._late_book = traces, ScoreBook(None, self.settings.feedback_score, self.settings.correction_score)
        book = self._late_book[1]
        while not book.complete:
            self._fill(book, trace_id=",".join(traces))
            if not book.complete and time.monotonic() >= deadline:
                return None
        return book

    def _trace_step(self, trace_id: str, page: str | None) -> tuple[list[Json], str | None]:
        """A page of a trace's generations, and the next page (None: that was the last one)."""
        try:
            found = self._observations(cursor=page, trace_id=trace_id)
        except BadRequest:
            if page is None:
                raise
            # As in a window: what was read already is stored, and is not stored twice.
            found = self._observations(trace_id=trace_id)
        return self._wanted(found.get("data")), _next_page(found)

    def _observations(self, **query: Any) -> Json:
        keys = [rule.removeprefix("metadata:") for rule in self.settings.workload_from if rule.startswith("metadata:")]
        only = self.settings.environments
        return self._client().observations(
            limit=self.settings.page_size,
            expand_metadata=",".join(dict.fromkeys([*keys, *METADATA_KEYS])),
            **({"environment": list(only)} if only else {}),
            **{name: value for name, value in query.items() if value is not None},
        )

    def _greet(self) -> None:
        """Once a process: is it there, are the keys right, and what will not work with this server?"""
        if self._greeted:
            return
        version, project = self._who()
        if warning := skew(version):
            log.warning("Langfuse project '%s': %s", project, warning)
        self._greeted = True

    def _who(self) -> tuple[str, str]:
        calls = self._client()
        version = str(calls.health().get("version") or "of unknown version")
        projects = calls.projects().get("data")
        first = projects[0] if isinstance(projects, list) and projects and isinstance(projects[0], dict) else {}
        return version, str(first.get("name") or first.get("id") or "?")

    def _client(self) -> LangfuseCalls:
        if self._calls is None:
            access = Access.from_environment()
            self._calls = LangfuseCalls(access, per_minute=self.settings.calls_per_minute, now=self.now)
        return self._calls

    def _link(self, row: Json) -> str:
        base, project = self._client().base_url, row.get("projectId")
        return f"{base}/project/{project}/traces/{row.get('traceId')}" if project else f"{base}/traces/{row.get('traceId')}"

    def _first_place(self) -> Place:
        return Place(start=self.now() - self.settings.lookback_days * 86_400)

    @property
    def _overlap(self) -> float:
        return self.settings.overlap_minutes * 60


def _is_traffic(environment: str) -> bool:
    return environment != OWN_ENVIRONMENT and not environment.startswith(NOT_TRAFFIC)


def _next_page(page: Json) -> str | None:
    meta = page.get("meta")
    cursor = meta.get("cursor") if isinstance(meta, dict) else None
    return cursor if isinstance(cursor, str) and cursor else None


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
