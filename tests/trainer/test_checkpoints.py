from __future__ import annotations

from pathlib import Path

from flywheel_assets.trainer import checkpoints


def write(work_dir: Path, step: int, *, complete: bool = True) -> Path:
    folder = work_dir / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_text("weights")
    if complete:
        checkpoints.mark_complete(work_dir, step)
    return folder


def test_the_latest_complete_checkpoint_counts_and_a_half_written_one_is_removed(tmp_path: Path) -> None:
    checkpoints.open_checkpoints(tmp_path, "a")
    write(tmp_path, 9)
    write(tmp_path, 10)
    half = write(tmp_path, 11, complete=False)
    checkpoints.open_checkpoints(tmp_path, "a")
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-10"
    assert not half.exists()


def test_checkpoints_of_other_inputs_are_never_continued(tmp_path: Path) -> None:
    checkpoints.open_checkpoints(tmp_path, "a")
    write(tmp_path, 5)
    assert checkpoints.open_checkpoints(tmp_path, "b") == {"fingerprint": "b"}
    assert checkpoints.latest(tmp_path) is None


def test_what_an_attempt_noted_is_known_to_the_next(tmp_path: Path) -> None:
    notes = checkpoints.open_checkpoints(tmp_path, "a")
    checkpoints.note(tmp_path, notes, validation_loss_before=1.5)
    assert checkpoints.open_checkpoints(tmp_path, "a")["validation_loss_before"] == 1.5


def test_other_files_in_the_work_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-notes").mkdir()
    (tmp_path / "trainer.log").write_text("log")
    checkpoints.open_checkpoints(tmp_path, "a")
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint-notes", "trainer.log", "inputs.json"}
