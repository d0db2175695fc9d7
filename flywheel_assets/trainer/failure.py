"""Failures: what can go wrong in a training, said to the person who must act.

What belongs here: the kinds, the exception that carries one, and the translation of the stack's own errors into one. What
does not: the checks themselves, which stand where the fault can be seen.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """Why a training failed. A retry without a change helps with none of them but INTERRUPTED, KILLED and TIMEOUT."""

    BAD_JOB = "bad_job"
    MODEL_MISSING = "model_missing"
    MODEL_UNREADABLE = "model_unreadable"
    NOT_INSTALLED = "not_installed"
    NO_GPU = "no_gpu"
    DTYPE = "dtype"
    TEMPLATE = "template"
    NO_ROWS = "no_rows"
    OUT_OF_MEMORY = "out_of_memory"
    LOSS_NOT_FINITE = "loss_not_finite"
    INTERRUPTED = "interrupted"
    KILLED = "killed"
    TIMEOUT = "timeout"
    UNEXPECTED = "unexpected"


class TrainerError(Exception):
    """A training that cannot go on: `message` says what and where, `next_step` what to change."""

    def __init__(self, kind: FailureKind, message: str, next_step: str) -> None:
        super().__init__(f"{message} {next_step}".strip())
        self.kind = kind
        self.message = message
        self.next_step = next_step

    def to_json(self) -> dict[str, str]:
        """The content of `error.json`."""
        return {"kind": self.kind.value, "message": self.message, "next_step": self.next_step}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainerError:
        """The inverse of `to_json`."""
        return cls(FailureKind(value["kind"]), str(value["message"]), str(value["next_step"]))


# What torch says when memory runs out: CUDA's own exception is a RuntimeError too, and the CPU allocator has no class.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE
)
_DTYPE = re.compile(
    r"not implemented for '(BFloat16|Half)'|bfloat16 is (only|not) supported|does not support bfloat16", re.IGNORECASE
)
_NO_GPU = re.compile(r"no NVIDIA driver|CUDA driver|No CUDA GPUs|not compiled with CUDA|0 active drivers", re.IGNORECASE)


def explain(error: BaseException, *, batch_size: int | None = None, max_seq_length: int | None = None) -> TrainerError:
    """The failure behind an exception of the training stack; one of ours is handed back as it is."""
    if isinstance(error, TrainerError):
        return error
    text = " ".join(str(error).split())[:600]
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return out_of_memory(text or type(error).__name__, batch_size=batch_size, max_seq_length=max_seq_length)
    if isinstance(error, RuntimeError) and _DTYPE.search(text):
        return TrainerError(
            FailureKind.DTYPE,
            f"The device cannot compute in the number format of this model ({text}).",
            "Set training.device to cpu (32-bit floats), or use a GPU that knows bfloat16.",
        )
    if isinstance(error, RuntimeError | NotImplementedError) and _NO_GPU.search(text):
        return TrainerError(
            FailureKind.NO_GPU, f"The GPU cannot be used ({text}).", "Set training.device to cpu, or repair the GPU driver."
        )
    return TrainerError(
        FailureKind.UNEXPECTED,
        f"The training ended with {type(error).__name__}: {text}",
        "See trainer.log in the training's work folder for the traceback.",
    )


def out_of_memory(detail: str, *, batch_size: int | None = None, max_seq_length: int | None = None) -> TrainerError:
    """The failure for memory that ran out, naming the two settings that cost it and their present values."""
    batch = "training.batch_size" + (f" (now {batch_size})" if batch_size else "")
    length = "training.max_seq_length" + (f" (now {max_seq_length})" if max_seq_length else "")
    return TrainerError(
        FailureKind.OUT_OF_MEMORY,
        f"Memory ran out while training ({detail}).",
        f"Lower {batch} or {length}, or use a smaller candidate.",
    )
