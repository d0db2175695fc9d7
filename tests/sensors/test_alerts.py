"""Alerts from what happened to what arrived: real runs and decisions, a real webhook and a real mail server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.alerts import Outbox, channels_of
from flywheel_assets.resources.artifacts import Made
from flywheel_assets.resources.doctor import examine
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.processes import ProcessIdentity, this_process
from flywheel_assets.resources.runs import OWNER_TAG, bury_dead_runs
from flywheel_assets.settings import SettingsError, parse_settings
from tests.assets.conftest import SETTINGS, Bench, bench, instance
from tests.e2e.own_traffic import write_ticket_records
from tests.elasticsearch_server import free_port
from tests.mailbox import Mailbox, Room, chat_room, mail_server

__all__ = ["bench", "instance"]

HOOK, PASSWORD = "TEST_ALERT_WEBHOOK", "TEST_ALERT_PASSWORD"
SECRETS = ("s3cret-of-the-room", "s3cret-of-the-server", "s3cret-of-the-mailbox")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with chat_room() as room:
        monkeypatch.setenv(HOOK, room.url)
        yield room


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    monkeypatch.setenv(PASSWORD, "s3cret-of-the-mailbox")
    with mail_server() as box:
        yield box


def mail_settings(box: Mailbox) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": box.port,
        "from": "flywheel@example.com",
        "to": ["ml@example.com", "on-call@example.com"],
        "password_env": PASSWORD,
        "starttls": False,
    }


class Watch:
    """The two sensors, ticking the way the daemon ticks them; cursors are kept as it keeps them."""

    def __init__(self, bench: Bench, **alerts: Any) -> None:
        self.bench = bench
        bench.content["alerts"] = {"webhook_env": HOOK, "ui_url": "https://dagster.example.com", **alerts}
        bench.content["candidates"] = SETTINGS["candidates"][:1]
        self._cursors: dict[str, str | None] = {}
        self.said: list[str] = []

    def tick(self) -> str:
        """Both sensors once; what the second one says."""
        for name in ("failed_runs", "alerts"):
            if name not in {sensor.name for sensor in self.bench.defs.sensors or ()}:
                continue
            context = dg.build_sensor_context(
                instance=self.bench.instance,
                instance_ref=self.bench.instance.get_ref(),
                definitions=self.bench.defs,
                cursor=self._cursors.get(name),
                resources={"flywheel": self.bench.flywheel},
            )
            done = self.bench.defs.resolve_sensor_def(name).evaluate_tick(context)
            for reaction in done.dagster_run_reactions or ():
                assert reaction.error is None, reaction.error
            self._cursors[name] = done.cursor or self._cursors.get(name)
            self.said.append(done.skip_message or "")
        return self.said[-1]


def fail_a_training(bench: Bench, why: str = "out of memory") -> None:
    bench.platform.train_error = {"small": RuntimeError(why)}
    bench.ingest(120)
    assert not bench.turn().ok


def test_a_failed_run_is_told_once_by_every_channel(bench: Bench, room: Room, mailbox: Mailbox) -> None:
    watch = Watch(bench, email=mail_settings(mailbox), on=["run_failure"])
    watch.tick()
    fail_a_training(bench)
    assert watch.tick() == "1 alerts sent, 0 wait."
    (text,) = room.texts
    assert text.startswith("*A run failed: tickets / small*")
    assert "What failed: adapter" in text and "Why: out of memory" in text
    (run,) = bench.instance.get_runs(filters=dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
    assert text.endswith(f"https://dagster.example.com/runs/{run.run_id}")
    (mail,) = mailbox.mails
    assert (mail["Subject"], mail["From"]) == ("[flywheel] A run failed: tickets / small", "flywheel@example.com")
    assert mail["To"] == "ml@example.com, on-call@example.com"
    assert "Why: out of memory" in mail.get_content()
    assert watch.tick() == "0 alerts sent, 0 wait."
    assert (len(room.texts), len(mailbox.mails)) == (1, 1)


def test_a_run_whose_process_was_killed_is_told_and_a_run_of_somebody_else_is_not(
    bench: Bench, instance: DagsterInstance, room: Room
) -> None:
    @dg.job
    def theirs() -> None:
        """Of another code location."""

    watch = Watch(bench, on=["run_failure"])
    watch.tick()
    run = instance.create_run_for_job(theirs, status=DagsterRunStatus.STARTED)
    instance.report_run_failed(run)
    dead = ProcessIdentity(this_process().host, 2**22 + 1, 1.0)
    job = bench.defs.resolve_implicit_global_asset_job_def()
    tags = {OWNER_TAG: str(dead), "dagster/partition": "tickets"}
    instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    bury_dead_runs(instance)
    for _ in range(3):
        watch.tick()
    (text,) = room.texts
    assert "A run failed: tickets" in text and "is dead; it was killed" in text


def decide(bench: Bench, workload: str, verdict: str, candidate: str | None, variant: str | None, rows: int) -> None:
    """Publish a decision the way the asset does; that it does is for the tests of the loop."""
    bench.instance.add_dynamic_partitions("workload", [workload])
    summary = {"verdict": verdict, "candidate": candidate, "variant": variant, "needed_rows": rows, "reasons": ["Because."]}
    store = bench.flywheel.artifacts
    with store.draft() as draft:
        (draft.path / "decision.json").write_text(json.dumps(summary))
        made = Made(f"{verdict}-{candidate}-{rows}", summary)
        store.publish(
            draft, graph.DECISION, Partition(workload), made, inputs_key=f"{verdict}-{candidate}-{rows}", inputs={},
            settings={}, code_version="1", origin={},
        )  # fmt: skip


def test_a_decision_is_told_when_it_says_something_else_and_only_then(bench: Bench, room: Room) -> None:
    watch = Watch(bench, on=["decision_change"])
    decide(bench, "tickets", "inconclusive", None, None, 400)
    assert watch.tick() == "0 alerts sent, 0 wait.", "what stood when the sensor was started is no news"
    decide(bench, "tickets", "inconclusive", "small", "prefixed", 300)
    watch.tick()
    assert room.texts == [], "decided again, and nobody has won yet"
    promoted = ("tickets", "promote", "small", "customized", 0)
    for decision in (promoted, ("tickets", "keep", None, None, 0), promoted):
        decide(bench, *decision)
        watch.tick()
        watch.tick()
    assert [text.splitlines()[0] for text in room.texts] == [
        "*tickets: the decision is now promote: small (customized)*",
        "*tickets: the decision is now keep*",
        "*tickets: the decision is now promote: small (customized)*",
    ]
    assert "It was inconclusive." in room.texts[0] and "assets/decision?partition=tickets" in room.texts[0]
    decide(bench, "other", "keep", None, None, 0)
    watch.tick()
    assert "It is the first decision on this workload." in room.texts[3]


def test_drift_is_told_once_however_often_it_is_seen_again(bench: Bench, room: Room) -> None:
    watch = Watch(bench, on=["drift"])
    bench.content["split"] = {"eval_size": 40, "min_total_records": 50}
    bench.ingest(120)
    bench.turn()
    watch.tick()
    assert room.texts == []
    for number, seed in ((100, 8), (130, 9)):
        path = write_ticket_records(bench.folder / f"{seed}.jsonl", number, workload="tickets", seed=seed)
        path.write_text(path.read_text().replace("refund_order", "escalate"))
        ingest([path], bench.flywheel.traces)
        only_the_data(bench)
        assert watch.tick().startswith(f"{1 if number == 100 else 0} alerts sent")
    (text,) = room.texts
    assert text.startswith("*tickets: the traffic has drifted since the decision*") and "new tools: escalate" in text
    assert "What now: `flywheel run tickets`" in text


def only_the_data(bench: Bench) -> None:
    """Records and profile made again, and no decision: as when the turn is still under way."""
    result = bench.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=bench.instance, asset_selection=[dg.AssetKey("records"), dg.AssetKey("workload_profile")],
        partition_key="tickets", raise_on_error=False,
    )  # fmt: skip
    assert result.success


@pytest.mark.parametrize("status", [500, 429, 404, 307])
def test_an_alert_that_did_not_get_through_waits_and_nothing_is_told_twice(
    bench: Bench, room: Room, mailbox: Mailbox, status: int
) -> None:
    watch = Watch(bench, email=mail_settings(mailbox), on=["run_failure"])
    watch.tick()
    job = bench.defs.resolve_implicit_global_asset_job_def()
    for _ in range(2):
        bench.instance.report_run_failed(bench.instance.create_run_for_job(job, tags={OWNER_TAG: "x:1:1.0"}))
    room.status = status
    assert watch.tick() == f"0 alerts sent, 2 wait; to be tried again: webhook: answered {status}."
    assert room.asked == 1, "what it did to one it does to all: the others are not tried in this tick"
    watch.tick()
    assert (len(room.texts), len(mailbox.mails)) == (0, 2)
    room.status = 200
    assert watch.tick() == "2 alerts sent, 0 wait."
    watch.tick()
    assert (len(room.texts), len(mailbox.mails)) == (2, 2)


def test_servers_that_are_away_refuse_or_hang_lose_nothing_and_hold_nobody_up(
    bench: Bench, room: Room, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import time

    watch = Watch(bench, email=mail_settings(mailbox), on=["run_failure"])
    watch.tick()
    job = bench.defs.resolve_implicit_global_asset_job_def()
    bench.instance.report_run_failed(bench.instance.create_run_for_job(job, tags={OWNER_TAG: "x:1:1.0"}))
    monkeypatch.setenv(HOOK, f"http://127.0.0.1:{free_port()}/services/s3cret-of-the-room")
    mailbox.refuses = 535
    assert watch.tick() == "0 alerts sent, 1 wait; to be tried again: webhook: ConnectError; email: 127.0.0.1 answered 535."
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(HOOK, f"http://127.0.0.1:{silent.getsockname()[1]}/services/s3cret-of-the-room")
        began = time.monotonic()
        assert "webhook: ReadTimeout" in watch.tick()
        assert time.monotonic() - began < 20
    monkeypatch.delenv(HOOK)
    assert f"the environment variable {HOOK} is not set" in watch.tick()
    monkeypatch.setenv(HOOK, room.url)
    mailbox.refuses = None
    assert watch.tick() == "1 alerts sent, 0 wait."
    assert (len(room.texts), len(mailbox.mails)) == (1, 1)


def test_no_secret_reaches_a_log_a_tick_or_a_file(
    bench: Bench, room: Room, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    watch = Watch(bench, email=mail_settings(mailbox), on=["run_failure"])
    watch.tick()
    key = "sk-proj-" + "abcDEF123456" * 3
    fail_a_training(bench, f"401: {key} is not known, says 'jane@example.com wants her order'")
    for status, refuses in ((500, 535), (200, None)):
        room.status, mailbox.refuses = status, refuses
        watch.tick()
    assert (len(room.texts), len(mailbox.mails)) == (1, 1)
    told = room.texts[0] + mailbox.mails[0].get_content()
    assert key not in told and "jane" not in told
    out, err = capfd.readouterr()
    kept = [path.read_bytes().decode(errors="replace") for path in (bench.flywheel.settings.home / "alerts").rglob("*.json")]
    everything = "\n".join([caplog.text, out, err, *watch.said, *map(str, watch._cursors.values()), *kept])
    assert kept and not [secret for secret in SECRETS if secret in everything]


def test_an_alert_is_given_up_after_a_week_and_remembered_so_that_it_does_not_come_back(
    bench: Bench, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    watch = Watch(bench, on=["run_failure"])
    watch.tick()
    job = bench.defs.resolve_implicit_global_asset_job_def()
    bench.instance.report_run_failed(bench.instance.create_run_for_job(job, tags={OWNER_TAG: "x:1:1.0"}))
    room.status = 500
    watch.tick()
    later = time.time() + 8 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert "1 given up after a week" in watch.tick()
    room.status = 200
    assert watch.tick() == "0 alerts sent, 0 wait."


def test_without_a_channel_there_is_no_sensor_and_with_one_they_ship_stopped(bench: Bench) -> None:
    ours = {"alerts", "failed_runs"}
    assert not ours & {sensor.name for sensor in bench.defs.sensors or ()}
    bench.content["alerts"] = {"webhook_env": HOOK}
    found = [sensor for sensor in bench.defs.sensors or () if sensor.name in ours]
    assert {sensor.name for sensor in found} == ours
    assert {sensor.default_status for sensor in found} == {dg.DefaultSensorStatus.STOPPED}


def parsed(text: str) -> Any:
    return parse_settings({**SETTINGS, "alerts": yaml.safe_load(text)}, home=Path("home"), root=Path())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{webhook_env: X, on: [weather]}", "alerts.on"),
        ("{email: {host: h, from: a@b.c, to: ['x@y, z@y']}}", "is no address"),
        ("{email: {host: h, from: a@b.c, to: [x@y], starttls: false, password_env: P}}", "in the clear; leave starttls on"),
        ("{webhook: X}", "alerts.webhook"),
    ],
)
def test_faulty_settings_are_refused_by_their_key(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parsed(text)
    assert said in str(refused.value)


def test_on_is_a_key_although_yaml_takes_it_for_true() -> None:
    assert [str(kind) for kind in parsed("webhook_env: X\non: [drift]").alerts.on] == ["drift"]


def test_the_doctor_says_where_alerts_go_and_sends_none(
    bench: Bench, room: Room, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> Any:
        (one,) = [one for one in examine(bench.flywheel.settings) if one.what == "alerts"]
        return one

    assert found().ok and found().found.startswith("none")
    bench.content["alerts"] = {"webhook_env": HOOK, "email": mail_settings(mailbox)}
    assert found().ok and f"webhook of {HOOK}" in found().found and "nothing was sent" in found().found
    assert "s3cret" not in str(found())
    monkeypatch.delenv(PASSWORD)
    assert not found().ok and f"NOT set: {PASSWORD}" in found().found
    assert (room.asked, mailbox.said) == (0, [])


def test_two_that_deliver_at_once_tell_nothing_twice(bench: Bench, room: Room) -> None:
    import time
    from concurrent.futures import ThreadPoolExecutor

    from flywheel_assets.core.alerts import Alert

    bench.content["alerts"] = {"webhook_env": HOOK}
    settings = bench.flywheel.settings
    for number in range(20):
        Outbox(settings.home).put(Alert(f"a{number}", "subject", ("line",)))
    with ThreadPoolExecutor(4) as pool:
        until = time.monotonic() + 10
        list(pool.map(lambda _: Outbox(settings.home).deliver(channels_of(settings.alerts), until=until), range(4)))
    assert len(room.texts) == 20
