from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flywheel_assets.resources import claims, leases
from flywheel_assets.resources.leases import LeaseError, LeaseTable
from flywheel_assets.resources.processes import ProcessIdentity, this_process

REPOSITORY = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from flywheel_assets.resources.leases import LeaseTable
with LeaseTable(Path(sys.argv[1])).acquire("gpu", weight=int(sys.argv[2]), budget=2, owner=sys.argv[3]):
    print("held", flush=True)
    time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LeaseTable:
    monkeypatch.setattr(leases, "_POLL_S", 0.02)
    return LeaseTable(tmp_path / "home" / "leases.sqlite")


def holder(table: LeaseTable, weight: int, owner: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(table._file.path), str(weight), owner, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lease_is_held_inside_the_block_only(table: LeaseTable) -> None:
    with table.acquire("gpu", weight=1, budget=2, owner="run-1"):
        (lease,) = table.leases("gpu")
        assert (lease.owner, lease.weight, lease.held, lease.process) == ("run-1", 1, True, this_process())
    assert table.leases() == []


def test_what_weighs_nothing_never_waits(table: LeaseTable) -> None:
    with (
        table.acquire("gpu", weight=2, budget=2, owner="run-1"),
        table.acquire("gpu", weight=0, budget=2, owner="run-2"),
    ):
        assert len(table.leases()) == 1


def test_a_lease_that_can_never_be_granted_is_refused_at_once(table: LeaseTable) -> None:
    why = r"run-1 needs 3 of 'gpu', but the whole budget is 2 \(local.gpu_budget\)"
    with pytest.raises(LeaseError, match=why), table.acquire("gpu", weight=3, budget=2, owner="run-1"):
        pass
    assert table.leases() == []


def test_the_budget_is_never_exceeded(table: LeaseTable) -> None:
    in_use, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> None:
        nonlocal in_use, most
        weight = 1 + number % 2
        with table.acquire("gpu", weight=weight, budget=2, owner=f"run-{number}"):
            with lock:
                in_use += weight
                most = max(most, in_use)
            time.sleep(0.01)
            with lock:
                in_use -= weight

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2 and table.leases() == []


def test_one_who_waits_is_told_for_whom_and_gets_its_turn(table: LeaseTable) -> None:
    told: list[str] = []
    with (
        holder(table, 2, "run-1", 0.3) as process,
        table.acquire("gpu", weight=1, budget=2, owner="run-2", announce=told.append),
    ):
        assert [lease.owner for lease in table.leases() if lease.held] == ["run-2"]
    assert process.wait() == 0
    assert told == ["waiting for 1 of 'gpu': 2 of 2 in use or asked for earlier by run-1 (2)"]


def test_a_heavy_one_is_not_overtaken_for_ever_by_light_ones(table: LeaseTable) -> None:
    order: list[str] = []

    def work(owner: str, weight: int) -> None:
        with table.acquire("gpu", weight=weight, budget=2, owner=owner):
            order.append(owner)

    with table.acquire("gpu", weight=1, budget=2, owner="first"):
        threads = []
        for asked, (owner, weight) in enumerate([("heavy", 2), ("light", 1)], start=2):
            threads.append(threading.Thread(target=work, args=(owner, weight)))
            threads[-1].start()
            while len(table.leases()) < asked:
                time.sleep(0.005)
        time.sleep(0.1)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == ["heavy", "light"]


def test_what_a_killed_process_held_is_free_again(table: LeaseTable) -> None:
    with holder(table, 2, "run-1", 60) as process:
        process.kill()
    with table.acquire("gpu", weight=2, budget=2, owner="run-2"):
        assert [lease.owner for lease in table.leases()] == ["run-2"]


def test_the_janitor_frees_what_the_dead_held_and_says_what(table: LeaseTable) -> None:
    with holder(table, 1, "run-1", 60) as process:
        assert table.release_dead() == []
        process.kill()
    assert [lease.owner for lease in table.release_dead()] == ["run-1"]
    assert table.leases() == []


def test_a_reused_process_id_does_not_keep_a_lease_alive(table: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    former = ProcessIdentity(me.host, me.pid, me.started - 1000)
    with table._file.transaction() as db:
        db.execute(
            "INSERT INTO leases (pool, weight, owner, process, held, heartbeat) VALUES ('gpu', 1, 'old', ?, 1, ?)",
            (str(former), time.time()),
        )
    assert [lease.owner for lease in table.release_dead()] == ["old"]


@pytest.mark.parametrize(("silent_s", "freed"), [(10, False), (claims.STALE_AFTER_S + 1, True)])
def test_a_lease_of_another_host_lives_as_long_as_its_heart_beats(table: LeaseTable, silent_s: float, freed: bool) -> None:
    with table._file.transaction() as db:
        db.execute(
            "INSERT INTO leases (pool, weight, owner, process, held, heartbeat) VALUES ('gpu', 1, 'far', ?, 1, ?)",
            (str(ProcessIdentity("elsewhere", 1, 1.0)), time.time() - silent_s),
        )
    assert bool(table.release_dead()) is freed


def test_a_live_process_keeps_its_lease_however_long_it_slept(table: LeaseTable) -> None:
    with table.acquire("gpu", weight=1, budget=2, owner="asleep"):
        with table._file.transaction() as db:
            db.execute("UPDATE leases SET heartbeat = 0")
        assert table.release_dead() == []


def test_a_held_lease_keeps_beating(table: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_HEARTBEAT_S", 0.02)
    with table.acquire("gpu", weight=1, budget=2, owner="run-1"):
        (before,) = table.leases()
        deadline = time.monotonic() + 30
        while table.leases()[0].heartbeat == before.heartbeat and time.monotonic() < deadline:
            time.sleep(0.02)
        assert table.leases()[0].heartbeat > before.heartbeat


def test_giving_up_while_waiting_leaves_the_queue(table: LeaseTable) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with table.acquire("gpu", weight=2, budget=2, owner="run-1"):
        with pytest.raises(KeyboardInterrupt), table.acquire("gpu", weight=1, budget=2, owner="run-2", announce=interrupt):
            pass
        assert [lease.owner for lease in table.leases()] == ["run-1"]
