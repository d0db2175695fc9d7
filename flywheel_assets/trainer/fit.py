"""The fit: the training loop, from examples to trained LoRA weights.

What belongs here: batches, the TRL trainer and its callback, the loss on validation rows. What does not: bringing up the
stack (`stack`), which rows are used (`rows`), and files other than checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import checkpoints
from .failure import FailureKind, TrainerError
from .job import Hyperparameters
from .order import training_order
from .report import Reporter
from .rows import IGNORED, Example
from .stack import Device

WARMUP_STEPS = 3
# The loss on validation rows is a sanity check, not the exam: it may cost a tenth of the tokens of training, once before
# and once after, and never fewer than this many rows where there are any.
VALIDATION_TOKEN_SHARE = 0.1
MIN_VALIDATION_ROWS = 4


@dataclass(frozen=True, slots=True)
class Fit:
    """What a training did: the loss of each step as [{"step", "loss", "learning_rate", "grad_norm"}], and its pace."""

    steps: int
    resumed_from: int
    loss_curve: list[dict[str, float]]
    tokens: int
    seconds: float


def collate(examples: Sequence[dict[str, list[int]]], *, padding_id: int) -> dict[str, Any]:
    """A batch of tensors (rows, longest row), padded on the right; padding is neither seen nor counted in the loss."""
    import torch

    longest = max(len(example["input_ids"]) for example in examples)

    def padded(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (longest - len(values))

    return {
        "input_ids": torch.tensor([padded(e["input_ids"], padding_id) for e in examples]),
        "attention_mask": torch.tensor([padded([1] * len(e["input_ids"]), 0) for e in examples]),
        "labels": torch.tensor([padded(e["labels"], IGNORED) for e in examples]),
    }


def validation_sample(examples: Sequence[Example], *, training_tokens: int, most_rows: int) -> list[Example]:
    """The validation rows the loss is measured on: the first ones, within the budget above."""
    budget = VALIDATION_TOKEN_SHARE * training_tokens
    sample: list[Example] = []
    for example in examples[:most_rows]:
        budget -= len(example.input_ids)
        if budget < 0 and len(sample) >= MIN_VALIDATION_ROWS:
            break
        sample.append(example)
    return sample


def mean_loss(model: Any, examples: Sequence[Example], *, batch_size: int, padding_id: int, device: Device) -> float:
    """Cross-entropy a completion token, in nats, over the examples; nothing is trained."""
    import torch

    total = 0.0
    tokens = 0
    was_training = model.training
    model.eval()
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    with torch.no_grad(), torch.autocast("cuda", getattr(torch, device.dtype), enabled=device.kind == "cuda"):
        for start in range(0, len(ordered), batch_size):
            part = ordered[start : start + batch_size]
            batch = collate([{"input_ids": e.input_ids, "labels": e.labels} for e in part], padding_id=padding_id)
            counted = sum(example.trained_tokens for example in part)
            output = model(**{key: tensor.to(device.kind) for key, tensor in batch.items()})
            total += float(output.loss) * counted
            tokens += counted
    model.train(was_training)
    return total / tokens


def fit(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    hyper: Hyperparameters,
    *,
    device: Device,
    work_dir: Path,
    reporter: Reporter,
) -> Fit:
    """Train the LoRA layers of `model` in place, from the latest complete checkpoint in `work_dir` where there is one.

    TrainerError when the loss stops being a number.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lengths = [len(example.input_ids) for example in examples]
    order = training_order(lengths, batch_size=hyper.batch_size, epochs=hyper.epochs, seed=hyper.seed)
    batches = [order[i : i + hyper.batch_size] for i in range(0, len(order), hyper.batch_size)]
    tokens_of_step = [sum(lengths[row] for row in batch) for batch in batches]
    walk = Dataset.from_list([{"input_ids": examples[i].input_ids, "labels": examples[i].labels} for i in order])
    padding_id = tokenizer.pad_token_id
    follower = _follower(tokens_of_step, work_dir, reporter)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=walk,
        data_collator=lambda rows: collate(rows, padding_id=padding_id),
        callbacks=[follower],
        args=SFTConfig(
            output_dir=str(work_dir),
            # The epochs are already in the order, see there.
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=hyper.batch_size,
            gradient_accumulation_steps=1,
            learning_rate=hyper.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(WARMUP_STEPS, len(batches) // 4),
            optim="adamw_torch_fused",
            weight_decay=0.0,
            seed=hyper.seed,
            data_seed=hyper.seed,
            bf16=device.dtype == "bfloat16",
            fp16=device.dtype == "float16",
            use_cpu=device.kind == "cpu",
            gradient_checkpointing=False,
            dataloader_pin_memory=device.kind == "cuda",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            max_length=hyper.max_seq_length,
            packing=False,
            save_strategy="steps",
            save_steps=hyper.save_steps,
            save_total_limit=2,
            logging_strategy="steps",
            logging_steps=1,
            # Left on, the trainer replaces a loss that is not a number by the mean of the others.
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    start = checkpoints.latest(work_dir)
    if start is not None:
        reporter.say(f"continuing from {start.name}")
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    return Fit(
        steps=int(trainer.state.global_step),
        resumed_from=follower.first_step,
        loss_curve=[
            {key: float(entry[key]) for key in ("step", "loss", "learning_rate", "grad_norm") if key in entry}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
        tokens=sum(tokens_of_step[follower.first_step :]),
        seconds=follower.seconds,
    )


def _follower(tokens_of_step: list[int], work_dir: Path, reporter: Reporter) -> Any:
    """The callback that reports steps, marks checkpoints as complete and stops at a loss that is no number.

    Made in a function because its base class may only be imported after Unsloth.
    """
    from transformers import TrainerCallback

    class Follower(TrainerCallback):  # type: ignore[misc]
        first_step = 0
        seconds = 0.0
        _began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.first_step = state.global_step
            self._began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs is None or "loss" not in logs:
                return
            loss = float(logs["loss"])
            step = int(state.global_step)
            if not math.isfinite(loss) or not math.isfinite(float(logs.get("grad_norm") or 0.0)):
                raise TrainerError(
                    FailureKind.LOSS_NOT_FINITE,
                    f"The loss is no longer a number at step {step} of {len(tokens_of_step)}.",
                    "Lower training.learning_rate.",
                )
            self.seconds = time.monotonic() - self._began
            pace = sum(tokens_of_step[self.first_step : step]) / max(self.seconds, 1e-6)
            left = sum(tokens_of_step[step:]) / pace if pace else 0.0
            reporter.step(step=step, of=len(tokens_of_step), loss=loss, tokens_per_s=pace, seconds_left=left)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoints.mark_complete(work_dir, state.global_step)

    return Follower()
