from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flywheel_assets.resources.model_files import folder_for, kept_layers, prune_layers, sha256_of, trainable_folder
from flywheel_assets.trainer.failure import FailureKind, TrainerError
from tests.trainer.tiny_model import write_gguf


def test_a_changed_file_has_another_hash_and_another_folder(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"one")
    first, folder = sha256_of(model), folder_for(model, tmp_path / "cache")
    model.write_bytes(b"two")
    os.utime(model, ns=(1, 1))
    assert sha256_of(model) != first
    assert folder_for(model, tmp_path / "cache") != folder


def test_a_model_folder_is_its_own_trainable_form(tmp_path: Path) -> None:
    assert trainable_folder(tmp_path, tmp_path / "cache") == tmp_path


def test_a_missing_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"gone\.gguf does not exist") as caught:
        trainable_folder(tmp_path / "gone.gguf", tmp_path / "cache")
    assert caught.value.kind is FailureKind.MODEL_MISSING


def test_both_ends_of_a_model_are_kept() -> None:
    assert kept_layers(30, 20) == [*range(12), *range(22, 30)]
    assert kept_layers(4, 4) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="5 of 4"):
        kept_layers(4, 5)


def test_pruning_keeps_the_chosen_layers_bit_for_bit_and_says_what_the_file_is(tmp_path: Path) -> None:
    import gguf

    source = write_gguf(tmp_path / "whole.gguf", layers=4)
    assert prune_layers(source, tmp_path / "pruned.gguf", [0, 3]) == [0, 3]
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "pruned.gguf")
    old = {t.name: t for t in before.tensors}
    new = {t.name: t for t in after.tensors}
    assert {name.split(".")[1] for name in new if name.startswith("blk.")} == {"0", "1"}
    for name, tensor in new.items():
        origin = old[name.replace("blk.1.", "blk.3.")]
        assert tensor.tensor_type == origin.tensor_type
        assert np.array_equal(tensor.data, origin.data)
    said = {key: field.contents() for key, field in after.fields.items()}
    assert said["llama.block_count"] == 2
    assert said["general.name"] == "Tiny, derived: 2 of 4 layers"
    assert "Layers 0, 3 of 4" in said["general.description"]
    assert "general.size_label" not in said
    kept = {k for k in before.fields if not k.startswith(("GGUF.", "general.")) and k != "llama.block_count"}
    assert all(said[key] == before.fields[key].contents() for key in kept)


def test_pruning_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "whole.gguf", layers=3)
    prune_layers(source, tmp_path / "a.gguf", 2)
    prune_layers(source, tmp_path / "b.gguf", 2)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_layers_the_model_does_not_have_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "whole.gguf", layers=2)
    with pytest.raises(ValueError, match="has layers 0 to 1"):
        prune_layers(source, tmp_path / "pruned.gguf", [0, 2])
    assert not (tmp_path / "pruned.gguf").exists()
