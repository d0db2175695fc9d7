"""The log of looks under everything that can happen to a workload: alpha is spent once, what was decided stays decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import Decision, Verdict, decide, look_taken
from flywheel_assets.core.gates import Gate
from flywheel_assets.core.graph import DECISION, Partition
from flywheel_assets.core.looks import Entry, Look, StartOver, StartOverRefused, counted, last_start, spent
from flywheel_assets.resources.artifacts import ArtifactStore, Made
from flywheel_assets.resources.looks import LookLog
from tests.core.decision.conftest import Evidence

SCHEDULES = ((), (40, 80), (40, 80, 120), (60,), (30, 10_000_000))
ALPHAS = (0.05, 0.04, 0.1)
ROWS = (30, 45, 60, 85, 120)


@cache
def comparison(rows: int, model: str, losses: int) -> Comparison:
    made = Evidence()
    asked = made.rows(rows)
    arm = replace(made.arm(asked, lambda index: index < losses), adapter_version=model)
    return made.compare(asked, arm)


class Killed(BaseException):
    """The process ends here."""


class DecidingForEver(RuleBasedStateMachine):
    """A workload whose settings, rows and models change, whose runs are killed, and whose people start over."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        home = Path(self.folder.name)
        self.log = LookLog(home, ArtifactStore(home / "artifacts"))
        self.looks: tuple[int, ...] = SCHEDULES[1]
        self.alpha, self.margin = 0.05, 0.1
        self.rows, self.model, self.losses = 45, "m1", 0
        self.before: tuple[Entry, ...] = ()
        # The levels that verdicts were really given at since the last start-over, one for each comparison and schedule.
        self.levels: dict[Any, float] = {}
        self.verdicts: dict[Any, Decision] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        self.decide()

    @rule(looks=st.sampled_from(SCHEDULES), alpha=st.sampled_from(ALPHAS))
    def register(self, looks: tuple[int, ...], alpha: float) -> None:
        self.looks, self.alpha = looks, alpha

    @rule(margin=st.sampled_from((0.1, 0.2)))
    def edit_the_gates(self, margin: float) -> None:
        self.margin = margin

    @rule(rows=st.sampled_from(ROWS), model=st.sampled_from(("m1", "m2")), losses=st.sampled_from((0, 3, 30)))
    def compare(self, rows: int, model: str, losses: int) -> None:
        self.rows, self.model, self.losses = rows, model, losses

    @rule()
    def decide(self) -> None:
        self._decide(kill_before=False, kill_after=False)

    @rule(after=st.booleans())
    def is_killed_while_deciding(self, after: bool) -> None:
        self._decide(kill_before=not after, kill_after=after)

    @rule()
    def start_over(self) -> None:
        try:
            self.log.start_over("router", who="Ada", why="another question")
        except StartOverRefused:
            assert not counted(self.log.entries("router"))
        else:
            self.levels.clear()
            self.verdicts.clear()

    def _decide(self, *, kill_before: bool, kill_after: bool) -> None:
        compared = comparison(self.rows, self.model, self.losses)
        what = (compared.data_version(), self.looks, self.alpha)
        ends_before = self.log.digest("router", what[0])
        try:
            with self.log.deciding("router") as (entries, record):
                earlier, already = counted(entries), spent(counted(entries))
                decided = decide(
                    compared,
                    [Gate("function_name_and_args", self.margin)],
                    alpha=self.alpha,
                    looks=self.looks,
                    earlier=earlier,
                    started_over=last_start(entries),
                )
                if kill_before:
                    raise Killed
                if (look := look_taken(decided)) is not None:
                    record(look)
                if kill_after:
                    raise Killed
        except Killed:
            return
        assert self.log.digest("router", what[0]) == ends_before, "a look made its own decision stale"
        if decided.evidence["look"] is None:
            assert spent(counted(self.log.entries("router"))) == already
            return
        level = decided.evidence["look"]["alpha"]
        assert level > 0
        assert self.levels.setdefault(what, level) == level, "the same comparison and schedule, judged at another level"
        counts = self.looks or any(known.registered for known in earlier)
        if counts and not any(known.comparison == what[0] and known.schedule == what[1:] for known in earlier):
            assert already + level <= self.alpha + 1e-12
        if self.looks:
            said = self.verdicts.setdefault((*what, self.margin), decided)
            # Two adapters with the very same scores are the same comparison, and differ in name alone.
            found, before = ([arm | {"adapter_version": None} for arm in d.evidence["arms"]] for d in (decided, said))
            assert (said.verdict, before) == (decided.verdict, found)

    @precondition(lambda self: self.looks)
    @rule()
    def decide_again(self) -> None:
        self.decide()
        log = self.log.entries("router")
        self.decide()
        assert self.log.entries("router") == log

    @invariant()
    def history_only_grows(self) -> None:
        now = self.log.entries("router")
        assert now[: len(self.before)] == self.before
        self.before = now

    @invariant()
    def registered_looks_never_spend_more_than_the_largest_alpha(self) -> None:
        looks = [look for look in counted(self.log.entries("router")) if look.registered]
        assert spent(looks) <= max((look.total_alpha for look in looks), default=0.0) + 1e-12


TestDecidingForEver = DecidingForEver.TestCase
TestDecidingForEver.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def decisions_of_an_older_release(home: Path, *told: list[Look]) -> ArtifactStore:
    """Versions of a decision as they were published before there was a log; each knows the looks it was handed."""
    import orjson

    store = ArtifactStore(home / "artifacts")
    for looks in told:
        old = [{key: value for key, value in look.to_json().items() if key not in ("gates", "time")} for look in looks]
        gates = [Gate("function_name_and_args", 0.1).to_json()]
        evidence = {"looks_taken": old, "look": {"number": 1, "alpha": 0.01}, "settings": {"gates": gates}}
        with store.draft() as draft:
            (draft.path / "decision.json").write_bytes(orjson.dumps({"evidence": evidence}))
            store.publish(
                draft,
                DECISION,
                Partition("router"),
                Made("v", {}),
                inputs_key=str(len(looks)) + looks[-1].comparison,
                inputs={},
                settings={},
                code_version="4",
                origin={},
            )
    return store


def test_no_look_of_any_older_decision_is_forgotten(home: Path) -> None:
    first = Look(1, 25, "c1", 0.006, "inconclusive", (20, 40), 0.05)
    second = Look(2, 60, "c2", 0.044, "keep", (20, 40), 0.05)
    another = Look(2, 62, "c3", 0.044, "promote", (20, 40), 0.05, ("small", "customized", "a1"))
    store = decisions_of_an_older_release(home, [first], [first, second], [first, another])
    log = LookLog(home, store)
    gates = (Gate("function_name_and_args", 0.1),)
    looks = counted(log.entries("router"))
    assert [look.timeless() for look in looks] == [replace(look, gates=gates) for look in (first, second, another)]
    assert all(look.time is not None for look in looks)
    assert spent(looks) == pytest.approx(0.094)
    before = log.digest("router", "c4")
    with log.deciding("router") as (entries, _):
        assert counted(entries) == looks
    assert counted(LookLog(home, ArtifactStore(home / "elsewhere")).entries("router")) == looks
    assert log.digest("router", "c4") == before


def test_starting_over_needs_a_name_and_a_reason_and_something_to_start_over_from(home: Path) -> None:
    log = LookLog(home, ArtifactStore(home / "artifacts"))
    with pytest.raises(StartOverRefused, match="no look was taken yet"):
        log.start_over("router", who="Ada", why="new candidates")
    with log.deciding("router") as (_, record):
        record(Look(1, 25, "c1", 0.006, "inconclusive", (20, 40), 0.05))
    for who, why, missing in (("", "new candidates", "--who"), ("Ada", "  ", "--why")):
        with pytest.raises(StartOverRefused, match=missing):
            log.start_over("router", who=who, why=why)
    log.start_over("router", who="Ada", why="new candidates")
    assert counted(log.entries("router")) == () and len(log.entries("router")) == 2


def test_every_later_decision_says_that_the_looks_were_started_over() -> None:
    start = StartOver("Ada", "new candidates", "2026-12-01T10:00:00+00:00")
    decided = decide(comparison(45, "m1", 0), [Gate("function_name_and_args", 0.1)], looks=(40,), started_over=start)
    said = "The looks were started over on 2026-12-01T10:00:00+00:00 by Ada: new candidates"
    assert said in decided.reasons and decided.evidence["started_over"] == start.to_json()


def waits() -> Iterator[tuple[Decision, Decision]]:
    """A promotion, and what is said of it where no look is left, by the same and by other gates."""
    gates = [Gate("function_name_and_args", 0.1)]
    first = decide(comparison(85, "m1", 0), gates, looks=(80,))
    assert first.verdict is Verdict.PROMOTE
    earlier = [look for look in [look_taken(first)] if look is not None]
    for later in (gates, [Gate("function_name_and_args", 0.05)]):
        yield first, decide(comparison(120, "m1", 0), later, looks=(80, 120), earlier=earlier)


def test_where_alpha_is_spent_the_decision_names_the_command_and_a_promotion_stands_for_its_own_gates_only() -> None:
    (_, same), (_, other) = waits()
    assert same.verdict is Verdict.PROMOTE and any("and that stands" in reason for reason in same.reasons)
    assert (other.verdict, other.needed_rows) == (Verdict.INCONCLUSIVE, 0)
    assert any("by other gates than those of today" in reason for reason in other.reasons)
    for decided in (same, other):
        assert any("flywheel looks router --start-over" in reason for reason in decided.reasons)
