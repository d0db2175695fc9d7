from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flywheel_assets.trainer.lora_gguf import NotConvertible, rotary_rows, write_lora_gguf


def adapter(folder: Path, tensors: dict[str, np.ndarray], model_type: str = "llama") -> tuple[Path, Path]:
    from safetensors.numpy import save_file

    (folder / "adapter").mkdir()
    (folder / "model").mkdir()
    save_file(tensors, str(folder / "adapter/adapter_model.safetensors"))
    (folder / "adapter/adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 2}))
    config = {"model_type": model_type, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    (folder / "model/config.json").write_text(json.dumps(config))
    return folder / "adapter", folder / "model"


def test_rows_of_each_head_become_pairs() -> None:
    rows = np.arange(8).reshape(8, 1)
    assert rotary_rows(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_only_query_and_key_rows_are_reordered_and_the_rest_is_copied(tmp_path: Path) -> None:
    import gguf

    prefix = "base_model.model.model.layers.0.self_attn"
    b = np.arange(16, dtype=np.float32).reshape(8, 2)
    a = np.ones((2, 8), np.float32)
    tensors = {f"{prefix}.{p}.lora_{f}.weight": m for p in ("q_proj", "v_proj") for f, m in (("A", a), ("B", b))}
    write_lora_gguf(*adapter(tmp_path, tensors), tmp_path / "a.gguf", name="test")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = {t.name: np.array(t.data) for t in reader.tensors}
    assert found["blk.0.attn_v.weight.lora_b"].tolist() == b.tolist()
    assert found["blk.0.attn_q.weight.lora_b"].tolist() == rotary_rows(b, 2).tolist()
    assert found["blk.0.attn_q.weight.lora_a"].tolist() == a.tolist()
    assert reader.fields["adapter.lora.alpha"].contents() == 8


def test_an_architecture_that_is_not_known_exactly_is_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match="'mystery'"):
        write_lora_gguf(*adapter(tmp_path, {}, "mystery"), tmp_path / "a.gguf", name="test")
    assert not list(tmp_path.glob("*.gguf"))
