"""Scores as feedback: which score belongs to which generation, and which of them came too late for their window.

What belongs here: the bookkeeping of one set of scores. What does not: fetching them (`langfuse_api`) and how a score's
value becomes `feedback` (`core.formats.langfuse_fields`).

A score on a generation counts for that one, a score on the observation around it for the generations directly inside, and a
score on a trace for all of its generations; the nearest one wins. Session and experiment scores belong to no generation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flywheel_assets.core.formats.langfuse_fields import feedback_of
from flywheel_assets.core.rows import Json

_DIGEST_DIGITS = 12


@dataclass(frozen=True, slots=True)
class _Scored:
    """One score's subject: `target` is the observation or trace id."""

    digest: str
    timestamp: float
    trace_id: str
    target: str


@dataclass(slots=True)
class ScoreBook:
    """The scores of one window (`window`), or of some traces; `page` is the next page while it is being filled."""

    window: tuple[float, float] | None
    score_name: str | None
    correction_name: str | None
    page: str | None = None
    complete: bool = False
    _by_target: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    _scored: list[_Scored] = field(default_factory=list)
    _oldest_seen: dict[str, float] = field(default_factory=dict)
    _observations: set[str] = field(default_factory=set)

    def add(self, scores: Iterable[Json]) -> None:
        """Take scores in; of several with one name on one subject the newest counts."""
        for score in scores:
            subject = score.get("subject")
            if not isinstance(subject, dict) or subject.get("kind") not in ("trace", "observation"):
                continue
            target, trace_id = subject.get("id"), subject.get("traceId") or subject.get("id")
            name = score.get("name")
            if not isinstance(target, str) or not isinstance(trace_id, str) or not isinstance(name, str):
                continue
            known = self._by_target[target].get(name)
            if known is None or _written(known) <= _written(score):
                self._by_target[target][name] = score
            self._scored.append(_Scored(_digest(score), epoch(score.get("timestamp")) or 0.0, trace_id, target))

    def feedback(self, observation: Json) -> Json | None:
        """The feedback of a generation."""
        nearest = [observation.get("traceId"), observation.get("parentObservationId"), observation.get("id")]
        found: dict[str, Json] = {}
        for target in nearest:
            if isinstance(target, str) and target in self._by_target:
                found.update(self._by_target[target])
        if not found:
            return None
        return feedback_of(found.get(self.score_name or ""), found.get(self.correction_name or ""))

    def saw(self, observations: Iterable[Json]) -> None:
        """Note which generations of the window were read with this book complete."""
        for observation in observations:
            start = epoch(observation.get("startTime"))
            trace_id = str(observation.get("traceId"))
            self._observations.add(str(observation.get("id")))
            if start is not None:
                self._oldest_seen[trace_id] = min(start, self._oldest_seen.get(trace_id, start))

    def late_traces(self, applied: Sequence[str], *, certain_from: float) -> tuple[str, ...]:
        """Traces whose scores no record of the window can have taken up.

        A generation that was seen has its own score. A score around it counts as taken up where all that was seen of the
        trace began after `certain_from`: a trace seen near the window's edge may have begun before it.
        """
        known = set(applied)
        late = {
            scored.trace_id
            for scored in self._scored
            if scored.digest not in known
            and scored.target not in self._observations
            and self._oldest_seen.get(scored.trace_id, 0.0) < certain_from
        }
        return tuple(sorted(late))

    def digests(self, since: float) -> tuple[str, ...]:
        """Digests of the scores from `since` on, to be known again in the next sweep."""
        return tuple(sorted({scored.digest for scored in self._scored if scored.timestamp >= since}))


def epoch(text: object) -> float | None:
    """Epoch seconds of an ISO time as Langfuse writes it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _written(score: Json) -> tuple[float, float]:
    return epoch(score.get("timestamp")) or 0.0, epoch(score.get("updatedAt")) or 0.0


def _digest(score: Json) -> str:
    content = "\0".join(str(score.get(key)) for key in ("id", "name", "value", "comment", "timestamp"))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
