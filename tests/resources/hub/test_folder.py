"""A local folder as the hub: whole revisions, never half of one, and never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel_assets.resources.hub import HubRefused, LocalFolder, Payload
from tests.hub_payloads import expected, make_payload, sha256

TAG = "decision-1234"


def read_folder(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()) for path in folder.iterdir()}


def test_a_folder_keeps_every_revision_and_points_to_the_last(tmp_path: Path) -> None:
    old, new = make_payload(tmp_path / "old"), make_payload(tmp_path / "new", seed=1)
    target = LocalFolder(tmp_path / "hub")
    first = target.publish("router", TAG, old, "old")
    second = target.publish("router", "decision-5678", new, "new")
    assert first.differing(old) == [] and second.differing(new) == []
    assert read_folder(tmp_path / "hub" / "router" / "main") == expected(new)
    assert read_folder(tmp_path / "hub" / "router" / "revisions" / TAG) == expected(old)
    again = target.publish("router", TAG, old, "back")
    assert again.sent == () and again.revision == first.revision
    assert read_folder(tmp_path / "hub" / "router" / "main") == expected(old)


def test_a_copy_that_was_killed_leaves_nothing_that_looks_finished(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(HubRefused, match="No space left on device"):
        LocalFolder(tmp_path / "hub").publish("router", TAG, payload, "full")
    assert list((tmp_path / "hub" / "router" / "revisions").iterdir()) == []
    monkeypatch.undo()
    placed = LocalFolder(tmp_path / "hub").publish("router", TAG, payload, "room again")
    assert placed.differing(payload) == []
    assert list((tmp_path / "hub" / "router").glob(".draft-*")) == []


def test_a_revision_that_was_changed_by_hand_is_not_written_over(tmp_path: Path, payload: Payload) -> None:
    target = LocalFolder(tmp_path / "hub")
    placed = target.publish("router", TAG, payload, "one")
    (Path(placed.url) / "README.md").write_text("changed")
    assert target.publish("router", TAG, payload, "two").tag == f"{TAG}-{payload.digest[:8]}"
    assert (Path(placed.url) / "README.md").read_text() == "changed"
