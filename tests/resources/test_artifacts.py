from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.artifacts import AlreadyBeingMade, Artifact, ArtifactMissing, ArtifactStore, Made

CELL = Partition("router", "small")


def publish(store: ArtifactStore, text: str = "weights", key: str = "k1", made: Made | None = None) -> Artifact:
    with store.draft() as draft:
        (draft.path / "adapter").mkdir()
        (draft.path / "adapter" / "weights.bin").write_text(text)
        return store.publish(
            draft,
            graph.ADAPTER,
            CELL,
            made or Made(data_version=text, summary={"rows": 3}),
            inputs_key=key,
            inputs={"datasets/train@router": "v1"},
            settings={"epochs": 1},
            code_version="1",
            origin={"dagster_run": "r"},
        )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_a_published_version_is_read_back_whole(store: ArtifactStore) -> None:
    published = publish(store)
    current = store.current(graph.ADAPTER, CELL)
    assert current == published
    assert (published.path / "adapter" / "weights.bin").read_text() == "weights"
    assert published.manifest["files"]["adapter/weights.bin"]["bytes"] == 7
    assert published.summary == {"rows": 3}


def test_the_same_content_for_the_same_inputs_is_the_same_version(store: ArtifactStore) -> None:
    assert publish(store).version == publish(store).version
    assert len(store.history(graph.ADAPTER, CELL)) == 1


def test_a_version_made_before_for_these_inputs_is_found_again(store: ArtifactStore) -> None:
    first = publish(store, "one", "k1")
    publish(store, "two", "k2")
    assert store.find(graph.ADAPTER, CELL, "k1") == first
    assert store.find(graph.ADAPTER, CELL, "k3") is None


def test_a_failed_version_is_never_reused(store: ArtifactStore) -> None:
    publish(store, made=Made("v", {}, state="failed", reason="6% of the rows errored"))
    assert store.find(graph.ADAPTER, CELL, "k1") is None


def test_success_forgets_the_failure_before_it(store: ArtifactStore) -> None:
    store.record_failure(graph.ADAPTER, CELL, "k1", "out of memory", "run")
    assert store.failure(graph.ADAPTER, CELL).message == "out of memory"  # type: ignore[union-attr]
    publish(store)
    assert store.failure(graph.ADAPTER, CELL) is None


def test_an_abandoned_draft_is_never_read(store: ArtifactStore) -> None:
    with pytest.raises(RuntimeError), store.draft() as draft:
        (draft.path / "half").write_text("half-written")
        raise RuntimeError("killed")
    assert store.current(graph.ADAPTER, CELL) is None
    assert list((store.root / "drafts").iterdir()) == []


def test_the_draft_of_a_killed_process_is_swept_and_a_living_one_is_left(store: ArtifactStore) -> None:
    code = (
        "import os, sys; from pathlib import Path; from flywheel_assets.resources.artifacts import ArtifactStore\n"
        "s = ArtifactStore(Path(sys.argv[1]))\n"
        "with s.draft() as d:\n  (d.path / 'half').write_text('x'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False, env={**os.environ, "PYTHONPATH": "."})
    with store.draft() as mine:
        assert store.sweep_drafts() == 1
        assert mine.path.is_dir()


def test_a_hard_link_of_the_previous_version_is_not_hashed_again(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flywheel_assets.resources.artifacts as module

    first = publish(store)
    hashed: list[Path] = []
    real = module.sha256_of_file
    monkeypatch.setattr(module, "sha256_of_file", lambda path: (hashed.append(path), real(path))[1])
    with store.draft() as draft:
        draft.inherit_hashes(first)
        os.link(first.path / "adapter" / "weights.bin", draft.path / "old.bin")
        (draft.path / "new.bin").write_text("new")
        second = store.publish(
            draft, graph.ADAPTER, CELL, Made("v2", {}), inputs_key="k2", inputs={}, settings={}, code_version="1", origin={}
        )
    assert [path.name for path in hashed] == ["new.bin"]
    assert second.manifest["files"]["old.bin"] == first.manifest["files"]["adapter/weights.bin"]


def test_two_writers_of_one_partition_take_turns(store: ArtifactStore) -> None:
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with store.lock(graph.ADAPTER, CELL):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    with pytest.raises(AlreadyBeingMade, match="adapter of router x small"), store.lock(graph.ADAPTER, CELL, timeout_s=0.1):
        pass
    with store.lock(graph.ADAPTER, Partition("router", "tiny"), timeout_s=0.1):
        pass
    leave.set()
    holder.join()
    with store.lock(graph.ADAPTER, CELL, timeout_s=5):
        pass


def test_a_missing_artifact_says_what_to_do(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissing, match=r"adapter of router x small is not made yet\. Materialize it first"):
        store.require(graph.ADAPTER, CELL)
