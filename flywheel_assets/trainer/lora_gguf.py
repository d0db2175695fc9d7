"""The adapter as GGUF: a LoRA in PEFT form, written down for llama.cpp.

What belongs here: names, the row order of attention projections, and the file. What does not: the base model's weights,
which are not needed.

Written directly with gguf-py instead of llama.cpp's conversion script: half a second instead of nine, no further dependency,
and nothing to keep from outliving us. Architectures whose weights llama.cpp reorders in ways not known here are refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# model_type of transformers -> (architecture in GGUF, whether query and key rows are reordered for llama.cpp's rotary form)
ARCHITECTURES: dict[str, tuple[str, bool]] = {
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "gemma2": ("gemma2", False),
    "gemma3_text": ("gemma3", False),
}


class NotConvertible(Exception):
    """This adapter has no GGUF form here; the message says why. The PEFT form is not affected."""


def rotary_rows(matrix: Any, heads: int) -> Any:
    """Rows of a query or key projection in llama.cpp's order: within each head, pairs instead of halves.

    `matrix` is (heads * head_dim, n); row `i` of the first half of a head becomes row `2i`, row `i` of the second `2i + 1`.
    """
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_lora_gguf(adapter_dir: Path, model_folder: Path, target: Path, *, name: str) -> None:
    """Write the PEFT adapter in `adapter_dir` as a GGUF file, 16-bit floats, complete or not at all.

    `model_folder` gives the base model's config.json. Raises NotConvertible for an architecture or layer unknown here.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    model = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    lora = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    model_type = model.get("model_type")
    if model_type not in ARCHITECTURES:
        raise NotConvertible(
            f"adapters of '{model_type}' models cannot be written as GGUF here (known: {', '.join(ARCHITECTURES)})"
        )
    architecture, reorders = ARCHITECTURES[model_type]
    heads = int(model["num_attention_heads"])
    key_heads = int(model.get("num_key_value_heads") or heads)
    arch_id = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(arch_id, int(model["num_hidden_layers"]))

    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    writer = gguf.GGUFWriter(part, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora["lora_alpha"]))
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, matrix in sorted(load_file(str(adapter_dir / "adapter_model.safetensors")).items()):
        module, _, factor = key.removeprefix("base_model.model.").rpartition(".lora_")
        if factor not in ("A.weight", "B.weight"):
            raise NotConvertible(f"'{key}' is no LoRA matrix")
        base = names.get_name(module)
        if base is None:
            raise NotConvertible(f"layer '{module}' has no name in GGUF's '{architecture}' architecture")
        if factor == "B.weight" and reorders and module.endswith((".q_proj", ".k_proj")):
            matrix = rotary_rows(matrix, heads if module.endswith(".q_proj") else key_heads)
        writer.add_tensor(f"{base}.weight.lora_{factor[0].lower()}", np.ascontiguousarray(matrix.astype(np.float16)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)
