"""The trainable folder: a GGUF file unpacked into the form that transformers loads, once per file.

What belongs here: the conversion, its lock and its completeness. What does not: which folder belongs to which file, which
is the caller's (`resources.model_files` keys it by the file's hash).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .failure import FailureKind, TrainerError

# Bump when the conversion changes, so that folders of the older one are made again.
VERSION = 1
_COMPLETE = f".complete-{VERSION}"


def is_complete(folder: Path) -> bool:
    """Whether the folder was finished by this version of the conversion."""
    return (folder / _COMPLETE).is_file()


def unpack_gguf(source: Path, folder: Path) -> None:
    """Make `folder` from a GGUF file: 32-bit weights, tokenizer, configuration. Does nothing where it is there already.

    Safe for several processes: one converts, the others wait. The folder appears complete or not at all. Needs four bytes a
    weight of memory, and of disk. Raises TrainerError where transformers cannot read the file.
    """
    if is_complete(folder):
        return
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if is_complete(folder):
            return
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _convert(source, part)
        (part / _COMPLETE).touch()
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        # Without dequantize the model keeps GGUF blocks, which can be neither trained nor saved.
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (ValueError, NotImplementedError, KeyError, OSError) as error:
        raise TrainerError(
            FailureKind.MODEL_UNREADABLE,
            f"The GGUF file {source} cannot be unpacked for training ({type(error).__name__}: {str(error)[:300]}).",
            "Use the original model folder as the candidate's `model`, or set `trainable: false`.",
        ) from None
    fix_special_tokens(tokenizer, model.config)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def fix_special_tokens(tokenizer: Any, config: Any) -> None:
    """Give the tokenizer the end and padding tokens of the model's configuration.

    transformers reads them from a GGUF into the configuration only; the tokenizer of SmolLM2 ends up with the *start* of a
    turn as its end token and no padding, and a model trained with it never stops.
    """
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    if end is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    padding = config.pad_token_id if config.pad_token_id is not None else tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
