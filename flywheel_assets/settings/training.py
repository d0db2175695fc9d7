"""The keys of `training` and `finetune`: how a candidate is fine-tuned, and when."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from flywheel_assets.settings.section import Section


class FinetuneMode(StrEnum):
    """Whether a cell is fine-tuned: always, only if the base model is not good enough on validation rows, or never."""

    ALWAYS = "always"
    IF_NEEDED = "if_needed"
    NEVER = "never"


class TrainingSettings(Section):
    """Hyper-parameters of one fine-tuning; the names are the NeMo Customizer's."""

    training_type: Literal["sft"] = Field("sft", description="Supervised fine-tuning is what is built.")
    finetuning_type: Literal["lora"] = Field("lora", description="LoRA is what is built.")
    epochs: int = Field(1, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(4, ge=1, description="Rows an optimizer step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak of the cosine schedule.")
    adapter_dim: int = Field(16, ge=1, description="LoRA rank.")
    adapter_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the LoRA layers.")
    max_seq_length: int = Field(1024, ge=64, description="Tokens; longer training rows are left out and counted.")
    max_rows: int | None = Field(None, ge=1, description="Training rows used at most; null means all of them.")
    seed: int = Field(0, description="Seed of shuffling, initialization and dropout.")
    save_steps: int = Field(10, ge=1, description="Optimizer steps between checkpoints, from which a killed run resumes.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one.")
    timeout_minutes: float = Field(240, gt=0, description="A training longer than this is ended.")


class FinetuneSettings(Section):
    """When a cell is fine-tuned."""

    mode: FinetuneMode = Field(
        FinetuneMode.ALWAYS, description="if_needed looks at the base model on validation rows first, never at eval rows."
    )
    metric: str = Field("function_name_and_args", description="Column looked at in mode if_needed.")
    threshold: float = Field(0.9, ge=0, le=1, description="Mode if_needed: a base score at or above it needs no fine-tune.")
