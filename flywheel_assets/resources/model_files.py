"""Model files on this machine: their identity, their trainable form, and derivatives made from them.

What belongs here: hashes, the folder a GGUF file is unpacked into, layer pruning. What does not: training (`training`),
serving, or fetching a model. Nothing here loads torch into this process; unpacking runs in a child.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from flywheel_assets.trainer import model_folder
from flywheel_assets.trainer.failure import FailureKind, TrainerError

_BLOCK = re.compile(r"^blk\.(\d+)\.(.+)$")
# Unpacking 135 million weights took 24 s on two busy cores; a model a hundred times as large fits in this.
_UNPACK_TIMEOUT_S = 3600


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex. Read once per (path, size, modification time) and process."""
    status = path.stat()
    return _sha256(str(path.resolve()), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_for(candidate_model: Path, cache_dir: Path) -> Path:
    """Where the trainable form of a candidate lies: the folder itself, or the one its GGUF file is unpacked into.

    The folder of a GGUF file is keyed by the file's hash, so that a changed file never meets an old folder. Nothing is made.
    """
    if candidate_model.suffix.lower() != ".gguf":
        return candidate_model
    return cache_dir / f"{candidate_model.stem}-{sha256_of(candidate_model)[:16]}"


def trainable_folder(candidate_model: Path, cache_dir: Path) -> Path:
    """The folder transformers can load a candidate from; a GGUF file is unpacked first, once, in a child process.

    A training does this itself in its own child; call it only where the folder is needed without one. Takes about 25 s and
    four bytes a weight for a new file. Raises TrainerError where the file is missing or cannot be read.
    """
    if not candidate_model.exists():
        raise TrainerError(
            FailureKind.MODEL_MISSING,
            f"The model {candidate_model} does not exist.",
            "Set the candidate's `model` in flywheel.yaml to a model folder or GGUF file that exists.",
        )
    folder = folder_for(candidate_model, cache_dir)
    if folder == candidate_model or model_folder.is_complete(folder):
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flywheel_assets.trainer.unpack", str(candidate_model), str(folder), str(os.getpid())]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=_UNPACK_TIMEOUT_S)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise TrainerError(
            FailureKind.MODEL_UNREADABLE,
            f"The GGUF file {candidate_model} could not be unpacked: {reason[0]}",
            "Use the original model folder as the candidate's `model`, or set `trainable: false`.",
        )
    return folder


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child can import this package from wherever we were imported."""
    package_root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": package_root + (os.pathsep + inherited if inherited else ""),
        # Read by OpenMP when the process starts: a waiting thread that spins takes a core from everybody else.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }


def kept_layers(total: int, keep: int) -> list[int]:
    """Which `keep` of `total` layers to keep: the first 60% of them from the start, the rest from the end.

    Of the runs of ten layers tried on SmolLM2-135M (30 layers; loss on tool-call conversations, nothing retrained), leaving
    out 12 to 21 did least harm: 5.7 nats a prompt token against 2.7 whole; runs nearer to the end 7 to 25, every second
    layer 8.5. Raises ValueError where there are not that many.
    """
    if not 0 < keep <= total:
        raise ValueError(f"cannot keep {keep} of {total} layers")
    head = round(keep * 0.6)
    return [*range(head), *range(total - (keep - head), total)]


def prune_layers(source: Path, target: Path, keep: int | Sequence[int]) -> list[int]:
    """Write a derivative of a GGUF model with only some of its layers; returns which were kept.

    `keep` is how many (see `kept_layers`) or which, counted from 0 and in order. Weights are copied as they are, still
    quantized; layers are numbered anew, the layer count follows, and the name says what the file is derived from. The file
    appears complete or not at all, and the same call writes the same bytes. Raises ValueError for layers the source does
    not have.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    total = int(_value(reader, f"{architecture}.block_count"))
    kept = kept_layers(total, keep) if isinstance(keep, int) else list(keep)
    if kept != sorted(set(kept)) or not kept or kept[0] < 0 or kept[-1] >= total:
        raise ValueError(f"{source} has layers 0 to {total - 1}; {kept} are not some of them in ascending order")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        part = target.with_name(f".{target.name}.part")
        writer = gguf.GGUFWriter(part, architecture)
        name = _value(reader, "general.name") if "general.name" in reader.fields else source.stem
        changed = {
            f"{architecture}.block_count": len(kept),
            "general.name": f"{name}, derived: {len(kept)} of {total} layers",
            "general.description": f"Layers {_spans(kept)} of {total}, taken from {source.name}; not trained afterwards.",
        }
        _copy_fields(reader, writer, changed)
        new_number = {old: new for new, old in enumerate(kept)}
        for tensor in reader.tensors:
            block = _BLOCK.match(tensor.name)
            if block is None:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            elif int(block[1]) in new_number:
                writer.add_tensor(f"blk.{new_number[int(block[1])]}.{block[2]}", tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(target)
    return kept


def _value(reader: Any, key: str) -> Any:
    return reader.fields[key].contents()


def _copy_fields(reader: Any, writer: Any, changed: dict[str, Any]) -> None:
    """Copy all metadata with some values changed or added; the size label, which would no longer be true, is left out."""
    import gguf

    # The writer makes the first three itself.
    left_out = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.size_label"}
    for field in reader.fields.values():
        if field.name in left_out:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = changed[field.name] if field.name in changed else field.contents()
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    for key in changed.keys() - reader.fields.keys():
        writer.add_string(key, changed[key])


def _spans(numbers: Sequence[int]) -> str:
    """`[0, 1, 2, 7]` as `0-2, 7`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)
