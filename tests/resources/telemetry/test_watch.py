from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel_assets.core.graph import ADAPTER, Partition
from flywheel_assets.resources.telemetry import (
    Ended,
    ObserverSpec,
    Phase,
    PhaseKind,
    PhaseStatus,
    Reading,
    Telemetry,
    breaker,
    watch,
)
from flywheel_assets.resources.telemetry.lane import QUEUE_LENGTH
from flywheel_assets.resources.telemetry.losses import Lost, is_old_news, warning_of

PHASE = Phase(PhaseKind.TRAINING, ADAPTER, (ADAPTER,), Partition("router", "small"), "run1", "turn1", "http://ui/run1", 0.0)


class Listener:
    """Writes down what it is told; `trouble` is called with the name of each message first."""

    def __init__(self, trouble: Callable[[str], None] = lambda message: None) -> None:
        self.told: list[str] = []
        self._trouble = trouble

    def _hear(self, message: str) -> None:
        self._trouble(message)
        self.told.append(message)

    def begin(self, phase: Phase) -> None:
        self._hear(f"begin {phase.name}")

    def reading(self, phase: Phase, reading: Reading) -> None:
        self._hear(f"reading {reading.step}")

    def end(self, phase: Phase, ended: Ended) -> None:
        self._hear(f"end {ended.status} of {phase.name}, parts {[span.name for span in ended.spans]}")

    def link(self, phase: Phase) -> str | None:
        return f"http://there/{phase.name}"

    def bury(self, dagster_runs: Sequence[str]) -> None:
        self._hear(f"bury {list(dagster_runs)}")


def hanging_until(released: threading.Event) -> Listener:
    def hang(message: str) -> None:
        released.wait(30)

    return Listener(hang)


def telemetry(folder: Path, listener: Listener, name: str = "Listener") -> Telemetry:
    return Telemetry([ObserverSpec(name, lambda: listener)], folder)


def test_a_phase_is_told_in_order_and_comes_back_with_a_link(tmp_path: Path) -> None:
    listener = Listener()
    watching = telemetry(tmp_path, listener).begin(PHASE)
    with watching.span("training"):
        watching.reading(1, {"loss": 2.0})
    told = watching.end(PhaseStatus.FINISHED)
    assert listener.told == ["begin adapter", "reading 1", "end FINISHED of adapter, parts ['training']"]
    assert (told.links, told.lost) == ({"Listener": "http://there/adapter"}, ())


def test_a_judge_is_a_phase_of_its_own_and_fails_with_its_work(tmp_path: Path) -> None:
    listener = Listener()
    watching = telemetry(tmp_path, listener).begin(PHASE)
    with pytest.raises(RuntimeError), watching.part(PhaseKind.JUDGE, "judge"):
        raise RuntimeError("no judge")
    assert listener.told[-1] == "end FAILED of judge, parts []"


def test_an_observer_that_throws_loses_messages_and_nothing_else(tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        raise ConnectionError("refused at http://user:secret@there/api")

    watching = telemetry(tmp_path, Listener(refuse)).begin(PHASE)
    watching.reading(1, {"loss": 2.0})
    told = watching.end(PhaseStatus.FINISHED)
    assert str(told.lost[0]).startswith(
        "Listener was not told 3 messages of this run (ConnectionError: refused at http://there"
    )
    assert "secret" not in str(told.lost[0])


def test_one_message_that_is_not_liked_does_not_cost_the_others(tmp_path: Path) -> None:
    def dislike(message: str) -> None:
        if message == "reading 1":
            raise ValueError("no such metric")

    listener = Listener(dislike)
    service = telemetry(tmp_path, listener)
    watching = service.begin(PHASE)
    watching.reading(1, {"loss": 2.0})
    watching.reading(2, {"loss": 1.0})
    assert watching.end(PhaseStatus.FINISHED).lost[0].messages == 1
    assert service.begin(PHASE).end(PhaseStatus.FINISHED).lost == ()


def test_a_hanging_observer_is_waited_for_once_and_then_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FLUSH_S", 0.2)
    released = threading.Event()
    hanging = hanging_until(released)
    first = telemetry(tmp_path, hanging).begin(PHASE).end(PhaseStatus.FINISHED)
    assert "took longer than" in first.lost[0].why
    # Another process, as far as the breaker can tell: it has only the folder in common.
    began = time.monotonic()
    second = telemetry(tmp_path, hanging).begin(PHASE).end(PhaseStatus.FINISHED)
    assert (second.lost[0].messages, time.monotonic() - began < 0.1) == (2, True)
    released.set()


def lagging(seconds: float) -> Listener:
    def lag(message: str) -> None:
        if message.startswith("end"):
            time.sleep(seconds)

    return Listener(lag)


def test_a_service_that_answers_but_costs_too_much_time_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FREE_S", 0.1)
    monkeypatch.setattr(breaker, "ALLOWED_S", 0.5)
    short = replace(PHASE, started=time.time())
    ends = [telemetry(tmp_path, lagging(0.3)).begin(short).end(PhaseStatus.FINISHED) for _ in "12345"]
    assert [bool(end.lost) for end in ends] == [False, False, False, True, True]
    assert ends[3].lost[0].why == "work waited 0.9 s for it within 5 minutes"


def test_long_work_may_wait_longer_and_old_waiting_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FREE_S", 0.0)
    monkeypatch.setattr(breaker, "ALLOWED_S", 0.5)
    # Two hours of training: 0.3 s are nothing.
    hours = replace(PHASE, started=time.time() - 7200)
    long = [telemetry(tmp_path, lagging(0.3)).begin(hours).end(PhaseStatus.FINISHED) for _ in "123"]
    assert [end.lost for end in long] == [(), (), ()]
    short = replace(PHASE, started=time.time())
    assert telemetry(tmp_path, lagging(0.3)).begin(short).end(PhaseStatus.FINISHED).lost == ()
    now = time.time
    monkeypatch.setattr(breaker.time, "time", lambda: now() + breaker.OPEN_S + 1)
    later = replace(PHASE, started=time.time())
    ends = [telemetry(tmp_path, lagging(0.3)).begin(later).end(PhaseStatus.FINISHED) for _ in "12"]
    assert [end.lost for end in ends] == [(), ()]


def test_a_service_that_was_left_alone_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(message: str) -> None:
        raise ConnectionError("refused")

    telemetry(tmp_path, Listener(refuse)).begin(PHASE).end(PhaseStatus.FINISHED)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert telemetry(tmp_path, Listener()).begin(PHASE).end(PhaseStatus.FINISHED).lost == ()


def test_one_observer_in_trouble_takes_nothing_from_another(tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        raise ConnectionError("refused")

    well = Listener()
    both = Telemetry([ObserverSpec("Bad", lambda: Listener(refuse)), ObserverSpec("Good", lambda: well)], tmp_path)
    told = both.begin(PHASE).end(PhaseStatus.FINISHED)
    assert ([lost.observer for lost in told.lost], list(told.links)) == (["Bad"], ["Good"])


def test_the_work_never_waits_for_a_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FLUSH_S", 0.2)
    released = threading.Event()
    watching = telemetry(tmp_path, hanging_until(released)).begin(PHASE)
    began = time.monotonic()
    for step in range(2 * QUEUE_LENGTH):
        watching.reading(step, {"loss": 1.0})
    assert time.monotonic() - began < 1
    assert watching.end(PhaseStatus.FINISHED).lost[0].messages >= QUEUE_LENGTH
    released.set()


def test_a_package_that_is_not_installed_is_a_loss_with_a_reason(tmp_path: Path) -> None:
    def missing() -> Listener:
        raise ModuleNotFoundError("No module named 'somewhere'")

    told = Telemetry([ObserverSpec("Somewhere", missing)], tmp_path).begin(PHASE).end(PhaseStatus.FINISHED)
    assert "No module named" in told.lost[0].why


def test_what_this_machine_needs_to_be_ready_is_not_taken_for_a_slow_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FLUSH_S", 0.3)
    listener = Listener()

    def imports() -> Listener:
        time.sleep(1.0)
        return listener

    told = Telemetry([ObserverSpec("Listener", imports)], tmp_path).begin(PHASE).end(PhaseStatus.FINISHED)
    assert told.lost == () and listener.told[-1].startswith("end FINISHED")


def test_a_run_is_warned_of_the_same_loss_once(tmp_path: Path) -> None:
    service = telemetry(tmp_path, Listener())
    lost = Lost("Listener", 2, "refused")
    assert [service.is_news(run, lost) for run in ("run1", "run1", "run2")] == [True, False, True]
    assert service.is_news("run1", Lost("Listener", 1, "something else"))


def test_only_a_warning_without_any_news_is_old_news() -> None:
    new, old = Lost("MLflow", 2, "refused"), Lost("Langfuse", 1, "refused", left_alone=True)
    assert warning_of([old]) == (
        "Langfuse was not told 1 message of this run (left alone for now: refused). Results are not affected."
    )
    assert [is_old_news(warning_of(lost)) for lost in ([old], [new], [new, old])] == [True, False, False]
    assert not is_old_news("left alone for now")


def test_killed_runs_are_told(tmp_path: Path) -> None:
    listener = Listener()
    telemetry(tmp_path, listener).bury(["run1"])
    assert listener.told == ["bury ['run1']"]
