"""Watch: one phase under way, as the work sees it: spans and numbers go in, links and losses come out at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.telemetry.breaker import Breaker
from flywheel_assets.resources.telemetry.lane import Lane
from flywheel_assets.resources.telemetry.losses import Lost
from flywheel_assets.resources.telemetry.phases import (
    Ended,
    Observer,
    ObserverSpec,
    Phase,
    PhaseKind,
    PhaseStatus,
    Reading,
    Span,
)

# What a run waits at its end for what is not told yet. A service that needs longer is left alone afterwards (`breaker`).
FLUSH_S = 5.0
# What it waits before that for imports and a local database: once a process, and while other work may want the same cores.
MAKING_S = 60.0
# A run that is being ended has ten seconds for everything.
KILLED_FLUSH_S = 1.5


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling: a link to each observer's page of the phase, and what was lost."""

    links: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()


class Telemetry:
    """Everybody who is told about the work of one flywheel home."""

    def __init__(self, specs: Sequence[ObserverSpec], folder: Path, ui_url: str = "") -> None:
        self._specs, self._breaker, self._ui_url = tuple(specs), Breaker(folder), ui_url.rstrip("/")
        self._made: dict[str, Observer] = {}
        self._said: set[tuple[str, str, str]] = set()
        self._making = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Who is told."""
        return tuple(spec.name for spec in self._specs)

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules whose import costs seconds, for whoever can import them once for many processes."""
        return tuple(module for spec in self._specs for module in spec.imports)

    def run_url(self, dagster_run: str) -> str:
        """Where a person sees a Dagster run."""
        return f"{self._ui_url}/runs/{dagster_run}"

    def is_news(self, dagster_run: str, lost: Lost) -> bool:
        """Whether a run has not been told yet that this observer loses messages for this reason; it has from now on."""
        known = (dagster_run, lost.observer, lost.why)
        news = known not in self._said
        self._said.add(known)
        return news

    def begin(self, phase: Phase) -> Watch:
        """Tell that a phase has begun; returns at once."""
        lanes = [Lane(spec.name, partial(self._observer, spec), self._breaker, phase) for spec in self._specs]
        return Watch(self, phase, lanes)

    def bury(self, dagster_runs: Sequence[str]) -> None:
        """Those runs were killed: end what is open for them. Waits a moment, and no longer."""
        if not dagster_runs:
            return
        for spec in self._specs:
            if self._breaker.why_open(spec.name) is None:
                thread = threading.Thread(target=self._bury, args=(spec, dagster_runs), daemon=True)
                thread.start()
                thread.join(FLUSH_S)

    def _bury(self, spec: ObserverSpec, dagster_runs: Sequence[str]) -> None:
        try:
            self._observer(spec).bury(dagster_runs)
        except Exception as error:  # noqa: BLE001  # Telemetry never fails a command, whatever a client throws.
            self._breaker.trip(spec.name, type(error).__name__)

    def _observer(self, spec: ObserverSpec) -> Observer:
        with self._making:
            if spec.name not in self._made:
                self._made[spec.name] = spec.make()
            return self._made[spec.name]


class Watch:
    """One phase under way. Every method returns at once, but `end`, which waits a bounded time."""

    def __init__(self, telemetry: Telemetry, phase: Phase, lanes: Sequence[Lane]) -> None:
        self.phase = phase
        self._telemetry, self._lanes = telemetry, tuple(lanes)
        self._spans: list[Span] = []
        self._told: list[Told] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A part of the phase, such as `asking`; noted however it ends."""
        started = time.time()
        try:
            yield
        finally:
            self._spans.append(Span(name, started, time.time()))

    def reading(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers read while the work is under way."""
        message = Reading(step, values, time.time())
        for lane in self._lanes:
            lane.put(message)

    @contextmanager
    def part(self, kind: PhaseKind, name: str) -> Iterator[Json]:
        """A phase of its own within this one, such as the judge; what is put into the dictionary are its `facts`."""
        facts: Json = {}
        started = time.time()
        inner = self._telemetry.begin(replace(self.phase, kind=kind, name=name, started=started))
        try:
            with self.span(name):
                yield facts
        except Exception as error:
            self._told.append(inner.end(PhaseStatus.FAILED, error=str(error)))
            raise
        except BaseException:
            self._told.append(inner.end(PhaseStatus.KILLED))
            raise
        self._told.append(inner.end(PhaseStatus.FINISHED, facts=facts))

    def end(
        self,
        status: PhaseStatus,
        artifacts: Sequence[Artifact] = (),
        *,
        error: str | None = None,
        facts: Json | None = None,
    ) -> Told:
        """Tell the end and wait for what is not told yet, all observers within the same few seconds."""
        ended = Ended(status, time.time(), tuple(self._spans), tuple(artifacts), error, facts or {})
        if status is not PhaseStatus.KILLED:
            made_by = time.monotonic() + MAKING_S
            for lane in self._lanes:
                lane.await_made(max(0.0, made_by - time.monotonic()))
        until = time.monotonic() + (KILLED_FLUSH_S if status is PhaseStatus.KILLED else FLUSH_S)
        lost = [lane.finish(ended, max(0.0, until - time.monotonic())) for lane in self._lanes]
        links = {lane.name: lane.link for lane in self._lanes if lane.link}
        for told in self._told:
            lost.extend(told.lost)
            links |= {f"{name} (judge)": link for name, link in told.links.items()}
        return Told(links, tuple(one for one in lost if one is not None))


SILENT = Telemetry((), Path())
