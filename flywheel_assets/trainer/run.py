"""One training from its job to its files: the table of contents of this folder.

What belongs here: the order of the phases and their clock. What does not: how a phase does its work.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import checkpoints
from .failure import FailureKind, TrainerError
from .fit import Fit, fit, mean_loss, validation_sample
from .job import Job
from .lora_gguf import NotConvertible, write_lora_gguf
from .model_folder import fix_special_tokens, unpack_gguf
from .report import REPORT_FILE, Reporter, write_json
from .rows import Row, Selection, encode, fingerprint, read_rows, select
from .stack import (
    ALPHA_PER_RANK,
    Device,
    attach_lora,
    choose_device,
    import_stack,
    load_model,
    prepare_environment,
    require_installed,
    versions,
)
from .template import check_template

ADAPTER_DIR = "adapter"
ADAPTER_GGUF = "adapter.gguf"
# Bump when the same job would now train different weights, so that no checkpoint of the older code is continued.
VERSION = 2


class _Clock:
    """Wall seconds a phase took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)


def train(job: Job, reporter: Reporter) -> dict[str, Any]:
    """Run the job; returns the report that is also written as `report.json` beside the adapter. Raises TrainerError.

    The report: `hyperparameters`, `device` {kind, name, dtype}, `rows` {used, too_long, not_drawn}, `row_ids` (those used),
    `validation` {loss_before, loss_after (nats a token, null without validation rows), rows, too_long}, `tokens` {sequence,
    trained, longest_row}, `steps`, `resumed_from_step`, `tokens_per_s`, `loss_curve` [{step, loss, learning_rate,
    grad_norm}], `versions`, `gguf` (file name or null, then with `gguf_reason`), `seconds` by phase (import, unpack, load,
    validate, train, convert).
    """
    clock = _Clock()
    hyper = job.hyperparameters
    work_dir = Path(job.work_dir)
    job.check_files()
    require_installed()
    train_rows, validation_rows = read_rows(job.train_files), read_rows(job.validation_files)
    if not train_rows:
        raise _no_rows(0, 0, hyper.max_seq_length)
    prepare_environment(job)

    reporter.phase("import", "loading the training stack")
    with clock.phase("import"):
        device = choose_device(hyper)
        import_stack(job)
    if job.is_gguf:
        reporter.phase("unpack", "unpacking the GGUF file into a trainable folder (once per model)")
        with clock.phase("unpack"):
            unpack_gguf(Path(job.model), Path(job.model_folder or ""))
    folder = job.model_folder if job.is_gguf and job.model_folder else job.model

    reporter.phase("load", "loading the model and reading the rows")
    with clock.phase("load"):
        model, tokenizer = load_model(folder, hyper, device)
        _set_up_tokenizer(tokenizer, model, job.template)
        used, validation = _select(job, train_rows, validation_rows, tokenizer)
        model = attach_lora(model, hyper, device)
    key = fingerprint(
        used.examples, VERSION, {**asdict(hyper), "save_steps": None, "device": device.dtype}, Path(folder).name, versions()
    )
    notes = checkpoints.open_checkpoints(work_dir, key)
    left_out = f", {used.too_long} left out as longer than {hyper.max_seq_length} tokens" if used.too_long else ""
    reporter.phase("train", f"training on {len(used.examples)} rows{left_out}, on {device.name}")

    sample = validation_sample(
        validation.examples,
        training_tokens=sum(len(example.input_ids) for example in used.examples) * hyper.epochs,
        most_rows=job.validation_rows,
    )

    def validation_loss() -> float | None:
        if not sample:
            return None
        with clock.phase("validate"):
            return mean_loss(model, sample, batch_size=hyper.batch_size, padding_id=tokenizer.pad_token_id, device=device)

    if "validation_loss_before" not in notes:
        notes = checkpoints.note(work_dir, notes, validation_loss_before=validation_loss())
    with clock.phase("train"):
        done = fit(model, tokenizer, used.examples, hyper, device=device, work_dir=work_dir, reporter=reporter)
    after = validation_loss()

    reporter.phase("save", "writing the adapter")
    report = _report(job, device, used, validation, done, before=notes["validation_loss_before"], after=after)
    report["validation"]["rows"] = len(sample)
    out_dir = Path(job.out_dir)
    part = out_dir.with_name(f".{out_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / ADAPTER_DIR).mkdir(parents=True)
    with clock.phase("convert"):
        _save(model, tokenizer, part / ADAPTER_DIR, base=Path(job.model).name)
        try:
            write_lora_gguf(part / ADAPTER_DIR, Path(folder), part / ADAPTER_GGUF, name=f"LoRA for {Path(job.model).name}")
            report["gguf"] = ADAPTER_GGUF
        except NotConvertible as reason:
            report |= {"gguf": None, "gguf_reason": str(reason)}
            reporter.say(f"no GGUF form of the adapter: {reason}")
    report["seconds"] = clock.seconds
    write_json(part / REPORT_FILE, report)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    part.replace(out_dir)
    loss = report["loss_curve"][-1]["loss"] if report["loss_curve"] else float("nan")
    reporter.phase("done", f"trained: {done.steps} steps, last loss {loss:.3f}, {sum(clock.seconds.values()):.0f} s in all")
    return report


def _set_up_tokenizer(tokenizer: Any, model: Any, template: str | None) -> None:
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise TrainerError(
            FailureKind.TEMPLATE,
            "The candidate's tokenizer has no chat template.",
            "Set `chat_template: chatml-tools` for the candidate in flywheel.yaml, or name a template file.",
        )
    fix_special_tokens(tokenizer, model.config)


def _select(job: Job, train: list[Row], validation: list[Row], tokenizer: Any) -> tuple[Selection, Selection]:
    """The examples to train on and to validate with, once the template is known to show everything the rows hold."""
    hyper = job.hyperparameters

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompt: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=prompt, tokenize=False))

    check_template(render, [*train, *validation])
    # A server puts the start token before the prompt where the tokenizer asks for it and the template has not written it.
    starts = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_row(row: Row) -> Any:
        example = encode(row, render, tokenize, eos_id=tokenizer.eos_token_id)
        if starts and example.input_ids[:1] != [tokenizer.bos_token_id]:
            return type(example)(row.row_id, [tokenizer.bos_token_id, *example.input_ids], [-100, *example.labels])
        return example

    used = select(train, encode_row, max_length=hyper.max_seq_length, max_rows=hyper.max_rows, seed=hyper.seed)
    if not used.examples:
        raise _no_rows(len(train), used.too_long, hyper.max_seq_length)
    checked = select(validation, encode_row, max_length=hyper.max_seq_length, max_rows=job.validation_rows, seed=hyper.seed)
    return used, checked


def _no_rows(rows: int, too_long: int, max_length: int) -> TrainerError:
    if rows == 0:
        return TrainerError(
            FailureKind.NO_ROWS, "There are no training rows.", "Build datasets/train of this workload again."
        )
    return TrainerError(
        FailureKind.NO_ROWS,
        f"No training row is left: all {too_long} are longer than {max_length} tokens.",
        f"Raise training.max_seq_length (now {max_length}).",
    )


def _save(model: Any, tokenizer: Any, folder: Path, *, base: str) -> None:
    """The adapter in PEFT form with its tokenizer; it names its base without a path of this machine, so that equal trainings
    are equal."""
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    config = folder / "adapter_config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**content, "base_model_name_or_path": base}, indent=2, sort_keys=True), encoding="utf-8")


def _report(
    job: Job, device: Device, used: Selection, validation: Selection, done: Fit, *, before: float | None, after: float | None
) -> dict[str, Any]:
    hyper = job.hyperparameters
    return {
        "hyperparameters": {**asdict(hyper), "lora_alpha": ALPHA_PER_RANK * hyper.adapter_dim},
        "device": {"kind": device.kind, "name": device.name, "dtype": device.dtype},
        "rows": {"used": len(used.examples), "too_long": used.too_long, "not_drawn": used.not_drawn},
        "row_ids": [example.row_id for example in used.examples],
        "validation": {"loss_before": before, "loss_after": after, "rows": 0, "too_long": validation.too_long},
        "tokens": {
            "sequence": sum(len(example.input_ids) for example in used.examples) * hyper.epochs,
            "trained": sum(example.trained_tokens for example in used.examples) * hyper.epochs,
            "longest_row": max(len(example.input_ids) for example in used.examples),
        },
        "steps": done.steps,
        "resumed_from_step": done.resumed_from,
        "tokens_per_s": round(done.tokens / done.seconds, 1) if done.seconds else None,
        "loss_curve": done.loss_curve,
        "versions": versions(),
    }
