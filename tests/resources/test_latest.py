from __future__ import annotations

import os
from pathlib import Path

import pytest

from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.latest import latest
from flywheel_assets.settings import SettingsError, load_settings, parse_settings

SETTINGS = "candidates: [{id: remote, model: 'http://127.0.0.1:1/v1', engine: openai}]\n"


@pytest.fixture
def flywheel(tmp_path: Path) -> Flywheel:
    file = tmp_path / "flywheel.yaml"
    file.write_text(SETTINGS)
    return Flywheel.at_home(load_settings(file))


def _write(flywheel: Flywheel, text: str) -> None:
    assert flywheel.settings.file is not None
    flywheel.settings.file.write_text(text)


def test_an_edited_file_is_read_again(flywheel: Flywheel) -> None:
    assert latest(flywheel) is flywheel
    _write(flywheel, SETTINGS + "decision: {alpha: 0.1}\n")
    assert latest(flywheel).settings.decision.alpha == 0.1
    assert flywheel.settings.decision.alpha == 0.05


def test_a_file_of_the_same_size_and_time_moved_over_it_is_read_again(flywheel: Flywheel, tmp_path: Path) -> None:
    file = flywheel.settings.file
    assert file is not None
    file.write_text(SETTINGS + "decision: {alpha: 0.01}\n")
    assert latest(flywheel).settings.decision.alpha == 0.01
    before = file.stat()
    new = tmp_path / "new.yaml"
    new.write_text(SETTINGS + "decision: {alpha: 0.02}\n")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(file)
    assert latest(flywheel).settings.decision.alpha == 0.02


def test_an_edit_that_says_the_same_keeps_the_flywheel_there_is(flywheel: Flywheel) -> None:
    _write(flywheel, "# for the record\n" + SETTINGS)
    assert latest(flywheel) is flywheel


def test_a_faulty_edit_is_an_error_until_it_is_mended(flywheel: Flywheel) -> None:
    _write(flywheel, SETTINGS + "decision: {alfa: 0.1}\n")
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"decision\.alfa"):
            latest(flywheel)
    _write(flywheel, SETTINGS + "decision: {alpha: 0.1}\n")
    assert latest(flywheel).settings.decision.alpha == 0.1


def test_settings_of_no_file_are_kept(tmp_path: Path) -> None:
    content = {"candidates": [{"id": "remote", "model": "http://127.0.0.1:1/v1", "engine": "openai"}]}
    flywheel = Flywheel.at_home(parse_settings(content, home=tmp_path / "home", root=tmp_path))
    assert latest(flywheel) is flywheel
