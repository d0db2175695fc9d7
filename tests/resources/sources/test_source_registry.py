"""A stranger's source gets in through an entry point; a broken one is named, with its package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.sources import (
    Pull,
    PulledRecord,
    SourceError,
    chosen_sources,
    collect,
    enabled_sources,
    registry,
)
from flywheel_assets.resources.sources.by_hand import pull_by_hand
from flywheel_assets.resources.trace_stores import LocalTraceStore
from flywheel_assets.settings import Settings, parse_settings
from tests.e2e.own_traffic import write_ticket_records

EXAMPLE = Path(__file__).parents[3] / "examples" / "jsonl_inbox_source"


def settings_with(folder: Path, **content: Any) -> Settings:
    return parse_settings({"candidates": [{"id": "a", "model": "a.gguf"}], **content}, home=folder / "home", root=folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("example")
    # A copy: building leaves its traces beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", folder / "site", source], check=True)
    return folder / "site"


@pytest.fixture
def example(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(installed))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


def test_the_example_package_reads_its_folder_and_goes_on_where_it_stood(example: Path, tmp_path: Path) -> None:
    settings = settings_with(tmp_path, sources={"jsonl_inbox": {"folder": "inbox"}})
    store = LocalTraceStore(tmp_path / "traces.sqlite")
    write_ticket_records(example / "01.jsonl", 700, workload="tickets")
    with (example / "01.jsonl").open("a") as file:
        file.write('not json\n{"workload_id": "tickets"}\n')
    said: list[str] = []
    report = pull_by_hand(settings, store, say=said.append)
    assert (report.new, report.reasons) == (700, {"not_json": 1, "missing_field": 1})
    assert said[-1].startswith("Jsonl inbox: 700 new records, 2 refused")
    assert {reject.origin for reject in store.rejects()} == {"01.jsonl:701", "01.jsonl:702"}
    write_ticket_records(example / "02.jsonl", 5, workload="tickets", seed=9)
    assert pull_by_hand(settings, store, ("jsonl_inbox",)).to_json()["new"] == 5
    assert pull_by_hand(settings, store).to_json() == {
        "new": 0,
        "duplicate": 0,
        "rejected": 0,
        "reasons": {},
        "workloads": {},
    }
    assert pull_by_hand(settings, store, again=True).duplicate == 705


def test_the_example_package_stays_silent_until_it_is_switched_on(example: Path, tmp_path: Path) -> None:
    assert enabled_sources(settings_with(tmp_path)) == ()
    with pytest.raises(SourceError, match="no source is switched on"):
        chosen_sources(settings_with(tmp_path), ())
    with pytest.raises(SourceError, match=r"source 'jsonl_inbox' .* needs `folder`"):
        enabled_sources(settings_with(tmp_path, sources={"jsonl_inbox": {}}))


def test_an_unknown_source_lists_the_known_ones(example: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"unknown source 'kafka'\. Switched on in flywheel\.yaml: langfuse"):
        chosen_sources(settings_with(tmp_path, langfuse={"enabled": True}), ("kafka",))


class Source:
    def __init__(self, name: Any = "mine") -> None:
        self.name = name

    def pull(self, cursor: str | None, *, deadline: float) -> Pull:
        return Pull("1")


def broken(settings: Settings) -> Source:
    raise KeyError("url")


def no_source(settings: Settings) -> object:
    return object()


def bad_name(settings: Settings) -> Source:
    return Source("My Source")


def taken(settings: Settings) -> Source:
    return Source("langfuse")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def _install(target: str) -> None:
        point = EntryPoint("theirs", f"{__name__}:{target}", registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point])
        load = EntryPoint.load
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[target] if self is point else load(self))

    yield _install


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("broken", "fails with KeyError: 'url'"),
        ("no_source", "is not a source: it needs `name` and `pull"),
        ("bad_name", "has the name 'My Source'"),
        ("taken", "brings a source named 'langfuse', which exists already"),
        ("missing", "fails with KeyError"),
    ],
)
def test_a_broken_plugin_is_named_with_what_is_wrong(
    install: Callable[[str], None], tmp_path: Path, target: str, problem: str
) -> None:
    install(target)
    with pytest.raises(SourceError, match="source 'theirs'") as caught:
        enabled_sources(settings_with(tmp_path, langfuse={"enabled": True}))
    assert problem in str(caught.value)


def test_records_that_are_no_json_and_records_that_break_the_schema_are_both_kept_with_a_reason(tmp_path: Path) -> None:
    class Odd(Source):
        def pull(self, cursor: str | None, *, deadline: float) -> Pull:
            return Pull("1", (PulledRecord({"a": {1, 2}}, "place 1"), PulledRecord({"workload_id": "w"}, "place 2")))

    store = LocalTraceStore(tmp_path / "traces.sqlite")
    for _ in range(2):
        report = collect(Odd(), store, None, deadline=time.monotonic() + 5, max_bytes=10**6).report
    assert report.reasons == {"not_json": 1, "missing_field": 1}
    assert {(reject.reason, reject.origin, reject.count) for reject in store.rejects()} == {
        ("not_json", "place 1", 1),
        ("missing_field", "place 2", 1),
    }


def test_a_store_that_fails_leaves_the_cursor_and_going_on_doubles_nothing(example: Path, tmp_path: Path) -> None:
    class Fragile(LocalTraceStore):
        broken = False

        def reject(self, lines: Any) -> int:
            if self.broken:
                raise OSError("disk full")
            return super().reject(lines)

    settings = settings_with(tmp_path, sources={"jsonl_inbox": {"folder": "inbox"}})
    store = Fragile(tmp_path / "traces.sqlite")
    write_ticket_records(example / "01.jsonl", 20, workload="tickets")
    with (example / "01.jsonl").open("a") as file:
        file.write("not json\n")
    store.broken = True
    with pytest.raises(OSError, match="disk full"):
        pull_by_hand(settings, store)
    store.broken = False
    report = pull_by_hand(settings, store)
    assert (report.new, report.duplicate, report.rejected) == (0, 20, 1)
    assert store.summary("tickets").count == 20
    ingest([example / "01.jsonl"], store)
    assert store.summary("tickets").count == 20
    assert json.dumps(report.to_json())
