"""A machine that is not supported is refused before it has downloaded anything; one that is, is let through."""

from __future__ import annotations

import platform
import shutil
from types import SimpleNamespace

import pytest

from flywheel_assets import system


@pytest.fixture(autouse=True)
def good_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20e9))


def test_a_supported_machine_has_no_fault() -> None:
    assert system.faults() == []


# Python before 3.14 says nothing of musl; later ones name it.
@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2.5"), ("libc", "")])
def test_another_c_library_than_glibc_is_refused(monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str]) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    (fault,) = system.faults()
    assert "glibc" in fault and "musl" in fault


def test_an_old_glibc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.17"))
    assert "glibc is 2.17" in system.faults()[0]


def test_the_base_packages_need_little_disk_and_training_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    assert system.faults(system.BASE_GB) == []
    assert "2.0 GB of disk are free here; 6 GB are needed" in system.faults()[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0.3e9))
    assert "0.3 GB of disk are free here; 1 GB are needed" in system.faults(system.BASE_GB)[0]
    assert system.main(["base"]) == 1
