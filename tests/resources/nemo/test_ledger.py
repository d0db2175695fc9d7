"""Who uses what of the cluster, and what is left when its process is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flywheel_assets.resources.leases import LeaseError
from flywheel_assets.resources.nemo.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "nemo.sqlite")


def test_users_of_one_thing_share_its_weight(ledger: Ledger) -> None:
    with ledger.using("deployment", "a", owner="run-1", weight=2, budget=2):
        with ledger.using("deployment", "a", owner="run-2", weight=2, budget=2):
            assert ledger.holders("deployment", "a") == ["run-1", "run-2"]
        assert ledger.holders("deployment", "a") == ["run-1"]
    assert ledger.holders("deployment", "a") == []


def test_another_thing_waits_for_room_and_says_for_whom(ledger: Ledger) -> None:
    said: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with ledger.using("deployment", "b", owner="run-2", weight=1, budget=2, announce=said.append):
            entered.set()

    with ledger.using("deployment", "a", owner="run-1", weight=2, budget=2):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(1.0)
    assert entered.wait(5.0)
    waiting.join()
    assert said == ["b: waiting for 1 GPUs; 2 of 2 are used by a"]


def test_a_thing_that_never_fits_is_refused_with_the_key(ledger: Ledger) -> None:
    with (
        pytest.raises(LeaseError, match=r"nemo\.gpu_budget"),
        ledger.using("deployment", "a", owner="run-1", weight=4, budget=2),
    ):
        pass


def test_what_somebody_holds_is_not_idle_and_what_nobody_holds_is(ledger: Ledger) -> None:
    ledger.note("customization", "k", "cust-1")
    with ledger.using("customization", "k", owner="run-1"):
        assert ledger.idle() == []
    ((thing, idle_s),) = ledger.idle()
    assert (thing.name, thing.remote) == ("k", "cust-1")
    assert 0 <= idle_s < 5
    ledger.forget("customization", "k")
    assert ledger.things() == []


def test_what_a_killed_process_held_is_free(ledger: Ledger, tmp_path: Path) -> None:
    ledger.note("deployment", "a")
    program = (
        "import sys, time; from pathlib import Path; from flywheel_assets.resources.nemo.ledger import Ledger\n"
        f"with Ledger(Path({str(tmp_path / 'nemo.sqlite')!r})).using('deployment', 'a', owner='x', weight=1, budget=1):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=dict(os.environ)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert ledger.holders("deployment", "a") == ["x"]
        child.send_signal(signal.SIGKILL)
    assert ledger.holders("deployment", "a") == []
    started = time.monotonic()
    with ledger.using("deployment", "b", owner="run-2", weight=1, budget=1):
        assert time.monotonic() - started < 2
    assert [thing.name for thing, _ in ledger.idle()] == ["a"]
