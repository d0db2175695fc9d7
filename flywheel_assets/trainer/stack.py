"""The training stack: torch, Unsloth and TRL, brought up for one device.

What belongs here: the environment they read, the choice of device and number format, loading the model and attaching the
LoRA layers. What does not: the training loop (`fit`). Nothing heavy is imported when this module is.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import FailureKind, TrainerError
from .job import Hyperparameters, Job

# alpha / r scales what the adapter adds; 2 is the usual choice and the one the figures in the docs were measured with.
ALPHA_PER_RANK = 2
# On a CPU only the last layers get LoRA layers: what lies before the first of them needs no backward pass. Measured on
# SmolLM2-135M, 96 tool-call rows: 172 tokens a CPU-second instead of 131, 2.3 GB instead of 3.5, loss on validation rows
# 0.165 against 0.154 (0.717 before), and the same 24 of 24 function names and 8 of 24 exact calls when served.
TRAINED_SHARE_ON_CPU = 0.6
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_REPORTED_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo", "accelerate", "gguf")


@dataclass(frozen=True, slots=True)
class Device:
    """What is trained on: `cpu` or `cuda`, its name, and the number format of the weights."""

    kind: str
    name: str
    dtype: str


def prepare_environment(job: Job) -> None:
    """Set the variables the stack reads when it is imported. Must run before torch is.

    Waiting OpenMP threads sleep instead of spinning (on two shared cores, spinning halves the speed of everything else);
    Unsloth neither reports usage nor writes its compiled cache into the working folder; a local model never asks a hub.
    """
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_DISABLE_AUTO_UPDATES": "1",
        "UNSLOTH_COMPILE_LOCATION": str(Path(job.work_dir) / "compiled"),
        "PYTHONUNBUFFERED": "1",
    }
    if not job.is_hub_id:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if job.threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(job.threads)
    os.environ.update(environment)
    # One training, one GPU: with several in sight the trainer would split each batch among them.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def require_installed() -> None:
    """TrainerError where a package of the training stack is missing; looks only, imports nothing."""
    missing = [
        name for name in ("torch", "transformers", "trl", "peft", "unsloth") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise TrainerError(
            FailureKind.NOT_INSTALLED,
            f"Training on this machine needs {', '.join(missing)}, which this environment does not have.",
            "Run `make setup`; or install the `local` extra (`pip install -e '.[local]'`) and then Unsloth without its GPU "
            "dependencies (`pip install --no-deps unsloth unsloth_zoo`; on a GPU: `pip install unsloth`).",
        )


def choose_device(hyper: Hyperparameters) -> Device:
    """The device and number format to train with; imports torch, and tells Unsloth where it is to be the CPU.

    TrainerError where cuda is asked for and not there, or the format is one the device cannot compute in.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if hyper.device == "cuda" and not has_gpu:
        built_for = f"torch {torch.__version__}"
        raise TrainerError(
            FailureKind.NO_GPU,
            f"training.device is cuda, but no usable NVIDIA GPU was found ({built_for}).",
            "Set training.device to auto or cpu, or install the driver and a CUDA build of torch.",
        )
    if hyper.device == "cpu" or not has_gpu:
        if hyper.dtype in ("bfloat16", "float16"):
            raise TrainerError(
                FailureKind.DTYPE,
                f"Training in {hyper.dtype} on a CPU is refused: most emulate it, many times slower than 32-bit floats.",
                "Leave the order's `hyperparameters.dtype` at auto (32-bit on a CPU), or set training.device to cuda.",
            )
        os.environ["UNSLOTH_FORCE_CPU"] = "1"
        return Device("cpu", f"CPU, {torch.get_num_threads()} threads", "float32")
    knows_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if hyper.dtype == "bfloat16" and not knows_bfloat16:
        raise TrainerError(
            FailureKind.DTYPE,
            f"The GPU {torch.cuda.get_device_name(0)} does not compute in bfloat16.",
            "Leave the order's `hyperparameters.dtype` at auto: it takes what the GPU knows.",
        )
    dtype = hyper.dtype if hyper.dtype != "auto" else ("bfloat16" if knows_bfloat16 else "float16")
    return Device("cuda", torch.cuda.get_device_name(0), dtype)


def import_stack(job: Job) -> None:
    """Import Unsloth (which must come before TRL, transformers and PEFT) and bound the threads."""
    import torch

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    import unsloth  # noqa: F401


def load_model(folder: str, hyper: Hyperparameters, device: Device) -> tuple[Any, Any]:
    """(model, tokenizer) of a model folder or hub id, through Unsloth, ready for `attach_lora`."""
    import torch
    from unsloth import FastLanguageModel

    try:
        model, tokenizer = FastLanguageModel.from_pretrained(
            folder,
            max_seq_length=hyper.max_seq_length,
            dtype=getattr(torch, device.dtype),
            load_in_4bit=False,
            use_gradient_checkpointing=_checkpointing(device),
        )
    except OSError as error:
        raise TrainerError(
            FailureKind.MODEL_MISSING,
            f"The model {folder} cannot be loaded ({' '.join(str(error).split())[:300]}).",
            "Set the candidate's `model` in flywheel.yaml to a complete model folder, GGUF file or hub id.",
        ) from None
    return model, tokenizer


def attach_lora(model: Any, hyper: Hyperparameters, device: Device) -> Any:
    """The model with LoRA layers beside the linear layers; only they are trained. They start as no change at all.

    On a GPU in every block, on a CPU in the last `TRAINED_SHARE_ON_CPU` of them.
    """
    from unsloth import FastLanguageModel

    blocks = trained_blocks(int(model.config.num_hidden_layers), device)
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return FastLanguageModel.get_peft_model(
        model,
        r=hyper.adapter_dim,
        lora_alpha=ALPHA_PER_RANK * hyper.adapter_dim,
        lora_dropout=hyper.adapter_dropout,
        target_modules=[name for name in TARGETS if name in present] or None,
        layers_to_transform=blocks,
        bias="none",
        use_gradient_checkpointing=_checkpointing(device),
        random_state=hyper.seed,
        max_seq_length=hyper.max_seq_length,
    )


def trained_blocks(total: int, device: Device) -> list[int] | None:
    """Which blocks of a model of `total` get LoRA layers; None means all."""
    if device.kind != "cpu":
        return None
    return list(range(total - max(1, round(TRAINED_SHARE_ON_CPU * total)), total))


def _checkpointing(device: Device) -> str | bool:
    # Recomputing activations saves GPU memory; on a CPU it costs a third of the time for memory that is there anyway.
    return "unsloth" if device.kind == "cuda" else False


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a training computes."""
    found = {}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
