"""Reading Langfuse over the wire: each generation is there exactly once, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.sources import SourceError, langfuse_api
from flywheel_assets.settings import SettingsError, parse_settings
from tests.langfuse_rows import Reading, iso, reading, row
from tests.langfuse_server import SECRET_KEY, Fault, LangfuseServer

NOW = time.time()
HOUR = 3600.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def langfuse(server: LangfuseServer, tmp_path: Path) -> Reading:
    """Seven generations of the last hours, three a page."""
    server.add(*(row(str(n), NOW - n * HOUR / 2) for n in range(7)))
    found = reading(server, tmp_path)
    # Scores of the test server carry the real time.
    found.clock = time.time() + 10
    return found


ALL = {f"obs-{n}" for n in range(7)}


def test_every_generation_of_the_window_becomes_a_record_with_its_link(langfuse: Reading) -> None:
    swept = langfuse.sweep()
    assert swept.done and swept.report.new == 7
    assert swept.sentence().startswith("Langfuse: 7 new records, read up to ")
    record = langfuse.records()["obs-3"]
    assert record["langfuse"]["url"] == f"{langfuse.server.url}/project/proj1/traces/trace-3"
    assert record["source"] == "traffic"


def test_a_second_sweep_of_the_same_traffic_changes_nothing(langfuse: Reading) -> None:
    langfuse.sweep()
    watermark = langfuse.store.watermark("router")
    again = langfuse.sweep()
    assert (again.report.new, again.report.updated) == (0, 0)
    assert again.sentence().startswith("Langfuse: nothing new, read up to ")
    assert langfuse.store.watermark("router") == watermark


def test_a_sweep_goes_on_from_its_cursor_in_another_process(langfuse: Reading) -> None:
    seen = 0
    for _ in range(20):
        swept = langfuse.sweep(max_records=1)
        seen += swept.report.new
        langfuse.fresh()
        if swept.done:
            break
    assert swept.done and seen == 7
    assert set(langfuse.records()) == ALL


def test_what_arrives_late_is_found_within_the_overlap(langfuse: Reading) -> None:
    langfuse.server.held = True
    langfuse.server.add(row("late", NOW - 25 * 60))
    langfuse.sweep()
    langfuse.server.release()
    langfuse.clock += 60
    assert langfuse.sweep().report.workloads == {"router": 1}
    assert set(langfuse.records()) == ALL | {"obs-late"}


def test_rows_that_come_on_two_pages_are_stored_once(langfuse: Reading) -> None:
    langfuse.server.repeat_rows = 2
    swept = langfuse.sweep()
    assert swept.report.new == 7 and swept.report.duplicate > 0
    assert set(langfuse.records()) == ALL


def test_a_generation_that_still_runs_is_waited_for(langfuse: Reading) -> None:
    running = row("slow", NOW - 60, endTime=None, output=None)
    langfuse.server.add(running)
    assert "obs-slow" not in langfuse.records() and langfuse.sweep().report.rejected == 0
    langfuse.server.add({**row("slow", NOW - 60)})
    langfuse.clock += 60
    langfuse.sweep()
    assert "obs-slow" in langfuse.records()


def test_a_generation_that_never_ends_is_refused_once_with_its_link(langfuse: Reading) -> None:
    langfuse.server.add(row("dead", NOW - 2 * HOUR, endTime=None))
    for _ in range(2):
        langfuse.sweep()
    (refused,) = [reject for reject in langfuse.store.rejects() if reject.reason == "unfinished"]
    assert (refused.count, refused.workload) == (1, "router")
    assert refused.origin == f"{langfuse.server.url}/project/proj1/traces/trace-dead"


def test_refused_rows_are_counted_with_their_reasons(langfuse: Reading) -> None:
    langfuse.server.add(
        row("error", NOW - 100, level="ERROR", statusMessage="boom"),
        row("cut", NOW - 100, input='[{"role": "us'),
        row("plain", NOW - 100, input="just text"),
        row("nobody", NOW - 100, tags=[], name="", traceName=""),
    )
    report = langfuse.sweep().report
    assert report.reasons == {"error_response": 1, "truncated": 1, "not_chat": 1, "missing_field": 1}
    assert report.new == 7
    assert all(reject.origin.startswith(langfuse.server.url) for reject in langfuse.store.rejects())
    langfuse.clock += 60
    again = langfuse.sweep()
    assert again.report.rejected == 4
    assert again.sentence().startswith("Langfuse: nothing new, read up to ")


def test_langfuses_own_generations_and_experiments_are_no_traffic(server: LangfuseServer, tmp_path: Path) -> None:
    for name, environment in {"a": "production", "b": "langfuse-llm-as-a-judge", "c": "sdk-experiment", "d": "ci"}.items():
        server.add(row(name, NOW - 60, environment=environment))
    everything = reading(server, tmp_path / "1")
    chosen = reading(server, tmp_path / "2", environments=["ci", "sdk-experiment"])
    everything.sweep()
    chosen.sweep()
    assert set(everything.records()) == {"obs-a", "obs-d"}
    assert set(chosen.records()) == {"obs-c", "obs-d"}


def test_metadata_that_langfuse_cuts_is_asked_for_whole(langfuse: Reading) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "x" * 400}}}
    metadata = {"response_format": schema, "workload_id": "w" * 300, "other": "y" * 400}
    langfuse.server.add(row("long", NOW - 60, metadata=metadata))
    langfuse.settings = langfuse.settings.model_copy(update={"workload_from": ("metadata:workload_id", "name")})
    langfuse.fresh()
    langfuse.sweep()
    (slug,) = [summary.slug for summary in langfuse.store.workloads() if summary.workload_id == "w" * 300]
    assert langfuse.records(slug)["obs-long"]["request"]["response_format"] == schema


def test_a_row_the_sdk_refuses_does_not_keep_its_page_out(langfuse: Reading) -> None:
    langfuse.server.add(row("odd", NOW - 60, usageDetails={"input": "many"}, promptVersion="three"))
    assert langfuse.sweep().report.new == 8


# --- Feedback


def test_feedback_of_the_window_is_in_the_record_and_stays_there(langfuse: Reading) -> None:
    langfuse.server.score("user-feedback", 0.0, trace_id="trace-1", observation_id="obs-1")
    langfuse.server.score("user-feedback", True, trace_id="trace-2")
    langfuse.server.score("user-feedback", 0.5, trace_id="trace-3", observation_id="span-3")
    langfuse.server.score("output", "a better answer", trace_id="trace-3")
    langfuse.server.score("other", 1.0, trace_id="trace-4")
    langfuse.sweep()
    watermark = langfuse.store.watermark("router")
    found = {name: record.get("feedback") for name, record in langfuse.records().items()}
    assert found["obs-1"] == {"score": 0.0}
    assert found["obs-2"] == {"score": 1.0}
    assert found["obs-3"] == {"score": 0.5, "correction": "a better answer"}
    assert found["obs-4"] is None
    for _ in range(3):
        langfuse.clock += 60
        langfuse.fresh()
        langfuse.sweep()
    assert langfuse.store.watermark("router") == watermark


@pytest.mark.parametrize("observation", ["obs-6", None])
def test_feedback_that_comes_late_updates_its_record_once(langfuse: Reading, observation: str | None) -> None:
    langfuse.sweep()
    assert "feedback" not in langfuse.records()["obs-6"]
    langfuse.clock += 60
    just_now = iso(langfuse.clock - 5)
    langfuse.server.score("user-feedback", 1, trace_id="trace-6", observation_id=observation, timestamp=just_now)
    swept = langfuse.sweep()
    assert (swept.report.new, swept.report.updated) == (1, 1)
    assert langfuse.records()["obs-6"]["feedback"] == {"score": 1.0}
    watermark, calls = langfuse.store.watermark("router"), len(langfuse.server.calls)
    langfuse.clock += 60
    langfuse.sweep()
    assert langfuse.store.watermark("router") == watermark
    assert len(langfuse.server.calls) - calls == 2  # scores and generations; nothing is read again for the old score


def test_feedback_that_is_changed_later_replaces_the_first(langfuse: Reading) -> None:
    langfuse.server.score("user-feedback", 1, trace_id="trace-6", id="s", timestamp=iso(NOW - 100))
    langfuse.sweep()
    langfuse.clock += 60
    langfuse.server.score("user-feedback", 0, trace_id="trace-6", id="s", timestamp=iso(langfuse.clock - 5))
    langfuse.sweep()
    assert langfuse.records()["obs-6"]["feedback"] == {"score": 0.0}


def test_many_late_scores_are_taken_up_over_several_steps(langfuse: Reading) -> None:
    langfuse.server.add(*(row(f"m{n}", NOW - 3 * HOUR) for n in range(25)))
    langfuse.sweep()
    langfuse.clock += 60
    for n in range(25):
        langfuse.server.score("user-feedback", 1, trace_id=f"trace-m{n}", timestamp=iso(langfuse.clock - 5))
    langfuse.server.faults.append(Fault(429, retry_after="7", path="traceId=trace-m20"))
    assert langfuse.sweep().resume_at == pytest.approx(langfuse.clock + 7)
    langfuse.clock += 8
    langfuse.fresh()
    langfuse.sweep()
    records = langfuse.records()
    assert all(records[f"obs-m{n}"]["feedback"] == {"score": 1.0} for n in range(25))


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_long_trace_that_was_scored_late_is_read_in_as_many_steps_as_it_takes(langfuse: Reading, forgotten: bool) -> None:
    langfuse.server.add(*(row(f"long{n}", NOW - 3 * HOUR + n, traceId="trace-long") for n in range(11)))
    langfuse.sweep()
    langfuse.clock += 60
    langfuse.server.score("user-feedback", 1, trace_id="trace-long", timestamp=iso(langfuse.clock - 5))
    made = [langfuse.step()]
    while "new scores" not in made[-1].note:
        made.append(langfuse.step())
    if forgotten:
        langfuse.server.faults.append(Fault(400, path="cursor="))
    while not made[-1].done:
        langfuse.fresh()
        calls = len(langfuse.server.calls)
        made.append(langfuse.step(late=True))
        # Greeting a server is two calls.
        assert len(langfuse.server.calls) - calls <= 5 and len(made) < 40
    assert all(langfuse.records()[f"obs-long{n}"]["feedback"] == {"score": 1.0} for n in range(11))


def test_many_scores_of_a_late_trace_are_read_in_as_many_steps_as_it_takes(
    langfuse: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    langfuse.sweep()
    langfuse.clock += 60
    for n in range(7):
        langfuse.server.score(
            "user-feedback", n / 10, id=f"s{n}", trace_id="trace-6", timestamp=iso(langfuse.clock - 20 + n)
        )
    monkeypatch.setattr(langfuse_api, "SCORES_A_PAGE", 2)
    for _ in range(40):
        calls, is_late = len(langfuse.server.calls), langfuse.is_late
        collected = langfuse.step(late=True)
        assert not is_late or len(langfuse.server.calls) - calls <= 2
        if collected.done:
            break
    assert langfuse.records()["obs-6"]["feedback"] == {"score": 0.6}


def test_without_score_names_no_score_is_asked_for(server: LangfuseServer, tmp_path: Path) -> None:
    found = reading(server, tmp_path, feedback_score=None, correction_score=None)
    server.add(row("a", NOW - 60))
    assert found.sweep().report.new == 1
    assert not [path for path in server.calls if "scores" in path]


# --- What goes wrong


def test_a_rate_limit_ends_the_tick_with_the_wait_in_the_cursor(langfuse: Reading) -> None:
    langfuse.server.faults.append(Fault(429, retry_after="42", path="/v2/observations?"))
    swept = langfuse.sweep()
    assert swept.done and swept.report.new == 0
    assert "asked to wait 42 s (rate limit), going on then" in swept.sentence()
    langfuse.clock += 20
    langfuse.fresh()
    calls = len(langfuse.server.calls)
    assert "asked to wait 22 s more" in langfuse.sweep().sentence()
    assert len(langfuse.server.calls) == calls
    langfuse.clock += 23
    assert langfuse.sweep().report.new == 7


def test_a_storm_of_rate_limits_loses_nothing(langfuse: Reading) -> None:
    langfuse.server.faults.extend(Fault(429, path=path) for path in ("scores", "v2/obs", "cursor=", "scores", "cursor=") * 2)
    for _ in range(40):
        swept = langfuse.sweep(max_records=1)
        langfuse.clock += 61
        if swept.done and swept.resume_at is None:
            break
    assert not langfuse.server.faults
    assert set(langfuse.records()) == ALL


def test_no_more_calls_a_minute_than_allowed(server: LangfuseServer, tmp_path: Path) -> None:
    server.add(*(row(str(n), NOW - n) for n in range(40)))
    found = reading(server, tmp_path, calls_per_minute=5)
    found.clock = NOW + 10
    made = []
    while True:
        swept = found.sweep()
        made.append(len(server.calls))
        if swept.resume_at is None:
            break
        assert "5 calls within a minute (langfuse.calls_per_minute)" in swept.sentence()
        found.clock = swept.resume_at + 0.01
    assert max(after - before for before, after in zip([0, *made], made, strict=False)) <= 5
    assert len(found.records()) == 40


def test_a_server_that_dies_in_mid_window_costs_nothing(langfuse: Reading) -> None:
    assert langfuse.sweep(max_records=1).report.new == 3
    langfuse.server.stop()
    with pytest.raises(SourceError, match="cannot be reached"):
        langfuse.sweep()
    langfuse.fresh()
    langfuse.server.start()
    assert langfuse.sweep().report.new == 4
    assert set(langfuse.records()) == ALL


@pytest.mark.parametrize(
    "fault", [Fault(500, path="cursor="), Fault(cut=True, path="cursor="), Fault(200, delay_s=0.6, path="cursor=")]
)
def test_a_failure_after_the_first_page_keeps_what_was_read(
    langfuse: Reading, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(langfuse_api, "_TIMEOUT_S", 0.3)
    langfuse.fresh()
    langfuse.server.faults.append(fault)
    swept = langfuse.sweep()
    assert swept.failure is not None and swept.report.new == 3
    assert "3 new records; then: Langfuse at " in swept.sentence()
    assert langfuse.sweep().report.new == 4
    assert set(langfuse.records()) == ALL


def test_a_page_cursor_that_the_server_forgot_means_reading_the_window_again(langfuse: Reading) -> None:
    langfuse.server.faults.append(Fault(400, path="cursor="))
    swept = langfuse.sweep()
    assert swept.done and swept.report.new == 7 and swept.report.duplicate == 3


def test_a_server_that_refuses_every_page_cursor_is_an_error_and_no_endless_reading(langfuse: Reading) -> None:
    langfuse.server.faults.extend(Fault(400, path="cursor=") for _ in range(5))
    swept = langfuse.sweep()
    assert swept.failure is not None and "refuses the request (400" in swept.sentence()
    assert swept.report.new == 3


def test_a_broken_cursor_says_how_to_reset_it(langfuse: Reading) -> None:
    langfuse.cursor = "{}"
    with pytest.raises(SourceError, match="flywheel pull --again"):
        langfuse.sweep()


def test_wrong_keys_and_missing_keys_are_named_and_never_shown(langfuse: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-wrong")
    langfuse.fresh()
    with pytest.raises(SourceError, match="refuses the keys") as caught:
        langfuse.sweep()
    assert "sk-lf-wrong" not in str(caught.value)
    monkeypatch.delenv("LANGFUSE_SECRET_KEY")
    langfuse.fresh()
    with pytest.raises(SourceError, match="LANGFUSE_SECRET_KEY not set"):
        langfuse.sweep()


def test_a_look_at_the_project_names_server_and_sdk_and_warns_of_skew(langfuse: Reading) -> None:
    status = langfuse.source.check()
    assert status.ok and "project 'Proj'" in status.found and "server 5.2.0, SDK 5." in status.found and not status.advice
    langfuse.server.version = "4.16.0"
    langfuse.fresh()
    status = langfuse.source.check()
    assert status.ok and "refuses the scores that SDK 5 sends" in status.advice
    assert SECRET_KEY not in repr(status) + repr(langfuse.source)
    langfuse.server.stop()
    langfuse.fresh()
    assert not langfuse.source.check().ok


def test_an_unknown_rule_is_refused_with_the_accepted_ones(tmp_path: Path) -> None:
    content: dict[str, Any] = {"candidates": [{"id": "a", "model": "a.gguf"}], "langfuse": {"workload_from": ["tags:x"]}}
    with pytest.raises(SettingsError, match=r"tag:PREFIX, metadata:KEY"):
        parse_settings(content, home=tmp_path, root=tmp_path)
