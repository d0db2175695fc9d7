"""Which formats there are, and which one some rows are in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets.core.formats import (
    LOG,
    FormatBroken,
    Undetected,
    UnknownFormat,
    detect,
    format_named,
    formats,
    registry,
)
from tests.core.formats.rows import HERMES, OPENAI, SHAREGPT, VALID, XLAM
from tests.plugin_package import install

PLUGIN = """
class Chatter:
    name = "chatter"
    title = "one utterance and its reply"
    def recognises(self, value):
        return value.keys() == {"said", "replied"}
    def records(self, value):
        message = {"role": "assistant", "content": value["replied"]}
        request = {"messages": [{"role": "user", "content": value["said"]}]}
        return [{"request": request, "response": {"choices": [{"message": message}]}}]
class Taken(Chatter):
    name = "openai"
class Failing(Chatter):
    name = "failing"
    def recognises(self, value):
        return value["said"] != ""
broken = object()
"""


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


def bring(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, what: str) -> None:
    point = {registry.ENTRY_POINT_GROUP: {"chatter": f"{module}:{what}"}}
    monkeypatch.syspath_prepend(install(folder, module, PLUGIN, point))


def test_rows_of_one_format_are_told_by_it() -> None:
    for name, rows in VALID.items():
        assert detect([*rows, {"a row": "of nothing"}], formats()).name == name


def test_rows_of_two_formats_are_not_guessed_about() -> None:
    with pytest.raises(Undetected, match=r"hermes \(2 of 3 rows\) and sharegpt \(1 of 3 rows\)") as caught:
        detect([HERMES, SHAREGPT, HERMES], formats())
    assert "--format hermes or --format sharegpt" in str(caught.value)
    # What a person then says is enough: one format reads both.
    assert all(format_named("hermes").records(row) for row in (HERMES, SHAREGPT))


def test_rows_of_no_format_are_the_log_schema_only_where_they_look_like_it() -> None:
    assert detect([], formats()) is LOG
    assert detect([{"request": {"input": "x"}, "workload_id": "embed"}], formats()) is LOG
    with pytest.raises(Undetected, match=r"fields: answer, question\)\. Known: log, openai, .*docs/data\.md"):
        detect([{"question": "x", "answer": "y"}], formats())


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownFormat, match=r"no format 'alpaca'\. Known: auto, log, openai, sharegpt"):
        format_named("alpaca")


def test_an_installed_package_adds_a_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bring(monkeypatch, tmp_path, "chatter_format", "Chatter")
    assert list(formats())[-1] == "chatter"
    assert detect([{"said": "x", "replied": "y"}], formats()).title == "one utterance and its reply"
    assert format_named("chatter").records({"said": "x", "replied": "y"})


def test_a_format_that_fails_to_look_at_a_row_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bring(monkeypatch, tmp_path, "failing_format", "Failing")
    with pytest.raises(FormatBroken, match=r"format 'failing' failed to look at a row \(KeyError: 'said'\)"):
        detect([OPENAI], formats())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"entry point 'chatter' \(broken_missing:missing\) of package 'broken_missing' .*AttributeError"),
        ("broken", "is no format: it needs `name`, `title`"),
        ("Taken", "a format named 'openai', which exists already"),
    ],
)
def test_a_broken_package_is_named_and_stands_in_nobody_elses_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, message: str
) -> None:
    bring(monkeypatch, tmp_path, f"broken_{what.lower()}", what)
    with pytest.raises(UnknownFormat, match=message):
        formats()
    assert format_named("openai").records(OPENAI) and format_named("xlam").records(XLAM)
