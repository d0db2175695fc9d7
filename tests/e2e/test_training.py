"""Training a model of a few thousand weights for real: Unsloth, TRL, checkpoints, llama.cpp. Every child costs an import."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pytest

from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.resources.chat_templates import resolve_template
from flywheel_assets.resources.hub import collect
from flywheel_assets.resources.model_files import folder_for, prune_layers
from flywheel_assets.resources.serving import Serving
from flywheel_assets.resources.training import TrainedAdapter, TrainingJob, job_for_child, run_training
from flywheel_assets.settings import Candidate, TrainingSettings
from flywheel_assets.trainer.failure import FailureKind, TrainerError
from tests.trainer.tiny_model import weather_row, write_gguf, write_rows

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

TEMPLATE = resolve_template(Candidate(id="tiny", model="tiny.gguf", chat_template="chatml-tools"), Path()) or ""
ROWS, TOO_LONG = 90, 3


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("training")
    rows = [weather_row(i) for i in range(ROWS)] + [weather_row(1000 + i, padding=400) for i in range(TOO_LONG)]
    return TrainingJob(
        model=write_gguf(folder / "tiny.gguf"),
        template=TEMPLATE,
        train_files=(write_rows(folder / "a.jsonl", rows[:50]), write_rows(folder / "b.jsonl", rows[50:])),
        validation_files=(write_rows(folder / "validation.jsonl", [weather_row(500 + i) for i in range(8)]),),
        settings=TrainingSettings(
            device="cpu", epochs=2, batch_size=2, adapter_dim=4, learning_rate=5e-3, save_steps=5, max_seq_length=1024
        ),
        out_dir=folder / "out",
        work_dir=folder / "work",
        cache_dir=folder / "cache",
        threads=1,
    )


@pytest.fixture(scope="module")
def trained(job: TrainingJob) -> tuple[TrainedAdapter, list[str]]:
    """One training through a Dagster run, and what the run's log said."""
    made: list[TrainedAdapter] = []

    @dg.asset
    def adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        made.append(run_training(context, job))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([adapter], instance=instance)
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    return made[0], said


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(str(folder / "adapter_model.safetensors"))


def test_the_run_log_tells_how_the_training_goes(trained: tuple[TrainedAdapter, list[str]]) -> None:
    _, said = trained
    steps = [line for line in said if line.startswith("step ")]
    assert "step 1/90" in steps[0]
    assert "tokens/s" in steps[0]
    assert "step 90/90" in steps[-1]
    assert any(f"{TOO_LONG} left out as longer than 1024 tokens" in line for line in said)


def test_the_report_accounts_for_every_row_token_and_second(trained: tuple[TrainedAdapter, list[str]]) -> None:
    report = trained[0].report
    assert report["rows"] == {"used": ROWS, "too_long": TOO_LONG, "not_drawn": 0}
    assert len(report["loss_curve"]) == report["steps"] == ROWS * 2 // 2
    assert 0 < report["tokens"]["trained"] < report["tokens"]["sequence"] / 2
    assert report["tokens"]["longest_row"] <= 1024
    assert {"import", "unpack", "load", "validate", "train", "convert"} <= report["seconds"].keys()
    assert report["device"]["dtype"] == "float32"
    assert report["versions"]["unsloth"] != "not installed"


def test_the_model_learns_the_completions(trained: tuple[TrainedAdapter, list[str]]) -> None:
    report = trained[0].report
    assert report["validation"]["loss_after"] < 0.8 * report["validation"]["loss_before"]
    assert report["loss_curve"][-1]["loss"] < report["loss_curve"][0]["loss"]


def test_nothing_is_left_in_the_working_folder_and_no_path_of_this_machine_in_the_adapter(
    trained: tuple[TrainedAdapter, list[str]], job: TrainingJob
) -> None:
    assert not Path("unsloth_compiled_cache").exists()
    config = (trained[0].adapter_dir / "adapter_config.json").read_text()
    assert str(job.work_dir.parent) not in config
    assert json.loads(config)["base_model_name_or_path"] == "tiny.gguf"


def test_the_adapter_brings_its_tokenizer_and_may_be_published_as_it_is(
    trained: tuple[TrainedAdapter, list[str]], job: TrainingJob
) -> None:
    from transformers import AutoTokenizer

    adapter_dir = trained[0].adapter_dir
    assert adapter_dir is not None
    there, base = (
        AutoTokenizer.from_pretrained(folder) for folder in (adapter_dir, folder_for(Path(job.model), job.cache_dir))
    )
    text = "<|im_start|>user\nWeather in place 7?<|im_end|>\n<|im_start|>assistant\n"
    assert there(text)["input_ids"] == base(text)["input_ids"]
    assert there.eos_token == "<|im_end|>" and there.chat_template == TEMPLATE
    files = {path.name: path for path in adapter_dir.iterdir()}
    payload = collect(files, CleaningPolicy(), {str(job.work_dir.parent): "where it was trained"})
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= payload.files.keys()


@pytest.fixture(scope="module")
def served(trained: tuple[TrainedAdapter, list[str]], job: TrainingJob) -> Iterator[str]:
    """llama.cpp's server with the base model, the adapter and the template; its address without `/v1`.

    A child process: in one process with torch, llama.cpp's server was seen to hang while starting.
    """
    candidate = Candidate(id="tiny", model=str(job.model), chat_template="chatml-tools", context_length=4096)
    with Serving().deployed(candidate, adapter_gguf=trained[0].gguf, owner="test", threads=1, private=False) as endpoint:
        yield endpoint.base_url.removesuffix("/v1")


def test_the_adapter_computes_the_same_in_peft_and_in_llama_cpp(
    trained: tuple[TrainedAdapter, list[str]], job: TrainingJob, served: str
) -> None:
    import httpx
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_for(Path(job.model), job.cache_dir or job.work_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = "<|im_start|>user\nWeather in place 7?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        without = base(ids).logits[0, -1].log_softmax(-1)
        tuned = PeftModel.from_pretrained(base, str(trained[0].adapter_dir))
        with_adapter = tuned(ids).logits[0, -1].log_softmax(-1)
    for scale, expected in ((0.0, without), (1.0, with_adapter)):
        asked = {"prompt": text, "n_predict": 1, "n_probs": 20, "temperature": 0, "lora": [{"id": 0, "scale": scale}]}
        answer = httpx.post(f"{served}/completion", json=asked, timeout=60).json()
        top = answer["completion_probabilities"][0]["top_logprobs"]
        found = np.array([entry["logprob"] for entry in top])
        assert np.abs(found - expected[[entry["id"] for entry in top]].numpy()).max() < 0.05
    assert (without - with_adapter).abs().max() > 0.5


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Rome","n":[1,2.0],"b":true}'}}
TOOLS = [
    json.loads(weather_row(0)["tools"])[0],
    {
        "type": "function",
        "function": {
            "name": "everything",
            "description": "Quotes \" ' <tags> & accents: é.",
            "parameters": {
                "type": "object",
                "properties": {
                    "unit": {"type": "string", "enum": ["c", "f"], "description": "Unit.\nTwo lines."},
                    "many": {"type": "array", "items": {"type": "integer"}},
                    "deep": {"type": "object", "properties": {"x": {"type": "number", "default": 1.5}}},
                    "items": {"type": "array", "items": {"type": "object", "properties": {"y": {"type": "string"}}}},
                    "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["unit"],
            },
        },
    },
    {"type": "function", "function": {"name": "bare"}},
]
USER = {"role": "user", "content": "Weather? 😀 <b>"}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "plain": ([USER], None),
    "system": ([{"role": "system", "content": "Be brief."}, USER], None),
    "tools": ([USER], TOOLS),
    "system and tools": ([{"role": "system", "content": "Be brief."}, USER], TOOLS),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], TOOLS),
    "several turns": (
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
            {"role": "tool", "tool_call_id": "1", "content": '{"t": 3}'},
            {"role": "tool", "tool_call_id": "1", "content": "4"},
            {"role": "assistant", "content": "3 and 4."},
            {"role": "user", "content": "  and now? \n"},
        ],
        TOOLS,
    ),
    "text before a call": (
        [USER, {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}, {"role": "tool", "content": "ok"}],
        TOOLS,
    ),
    "calls without tools": ([USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, USER], None),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_template_renders_the_same_in_training_and_in_serving(name: str, served: str) -> None:
    import httpx
    from transformers.utils.chat_template_utils import render_jinja_template

    from flywheel_assets.trainer.rows import as_rendered

    messages, tools = CONVERSATIONS[name]
    asked = {"messages": messages, **({"tools": tools} if tools else {})}
    serving = httpx.post(f"{served}/apply-template", json=asked, timeout=60).json()["prompt"]
    training, _ = render_jinja_template(
        conversations=[[as_rendered(m) for m in messages]], tools=tools, chat_template=TEMPLATE, add_generation_prompt=True
    )
    assert serving == training[0]


def test_a_pruned_model_loads_in_transformers_and_in_llama_cpp(tmp_path: Path) -> None:
    import httpx
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    prune_layers(write_gguf(tmp_path / "whole.gguf", layers=4), tmp_path / "pruned.gguf", [0, 3])
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="pruned.gguf", dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    assert len(model.model.layers) == 2
    candidate = Candidate(id="pruned", model=str(tmp_path / "pruned.gguf"), context_length=512)
    # A child process here, too: beside torch, llama.cpp's server was also seen to hang while ending.
    with Serving().deployed(candidate, owner="test", threads=1, private=False) as endpoint:
        assert httpx.get(f"{endpoint.base_url}/models", timeout=60).status_code == 200


def child(job: TrainingJob, folder: Path) -> tuple[subprocess.Popen[bytes], TrainingJob]:
    """The trainer on its own, as somebody without Dagster would start it."""
    folder.mkdir(exist_ok=True)
    alone = replace(job, out_dir=folder / "out", work_dir=folder / "work")
    (folder / "job.json").write_text(json.dumps(job_for_child(alone).to_json()))
    log = (folder / "log").open("ab")
    command = [sys.executable, "-m", "flywheel_assets.trainer", str(folder / "job.json")]
    return subprocess.Popen(command, stdout=log, stderr=log), alone


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    trained: tuple[TrainedAdapter, list[str]], job: TrainingJob, tmp_path: Path
) -> None:
    process, alone = child(job, tmp_path / "killed")
    mark = alone.work_dir / "checkpoint-20/complete.json"
    while not mark.exists():
        assert process.poll() is None, (tmp_path / "killed/log").read_text()[-2000:]
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not alone.out_dir.exists()
    # What a kill in the middle of writing leaves behind: the name of a checkpoint, and half of its files.
    (alone.work_dir / "checkpoint-88").mkdir()
    (alone.work_dir / "checkpoint-88/trainer_state.json").write_text('{"global')

    process, _ = child(job, tmp_path / "killed")
    assert process.wait(200) == 0, (tmp_path / "killed/log").read_text()[-2000:]
    report = json.loads((alone.out_dir / "report.json").read_text())
    assert 20 <= report["resumed_from_step"] < 88
    assert len(report["loss_curve"]) == report["steps"] == 90
    resumed, whole = weights(alone.out_dir / "adapter"), weights(trained[0].adapter_dir)
    assert resumed.keys() == whole.keys()
    assert max(float(np.abs(resumed[key] - whole[key]).max()) for key in whole) < 1e-4


def test_a_signal_during_the_import_ends_the_child_at_once(job: TrainingJob, tmp_path: Path) -> None:
    process, alone = child(job, tmp_path / "interrupted")
    while not (alone.work_dir / "progress.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 128 + signal.SIGINT
    assert json.loads((alone.work_dir / "error.json").read_text())["kind"] == "interrupted"


RUN = """
import pickle, sys
import dagster as dg
from flywheel_assets.resources.training import run_training
job = pickle.load(open(sys.argv[1], "rb"))

@dg.asset
def adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    run_training(context, job)
    return dg.MaterializeResult()

dg.materialize([adapter])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ending_the_run_ends_the_child(job: TrainingJob, tmp_path: Path, number: signal.Signals) -> None:
    import pickle

    (tmp_path / "job").write_bytes(pickle.dumps(replace(job, out_dir=tmp_path / "out", work_dir=tmp_path / "work")))
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "job")], stdout=log, stderr=log)
    progress_file = tmp_path / "work/progress.json"
    while not progress_file.exists():
        assert run.poll() is None, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.05)
    trainer = psutil.Process(json.loads(progress_file.read_text())["pid"])
    start = time.monotonic()
    os.kill(run.pid, number)
    trainer.wait(10)
    run.wait(10)
    assert time.monotonic() - start < 10


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    from flywheel_assets.trainer.fit import _follower
    from flywheel_assets.trainer.report import Reporter

    class Quiet:
        def info(self, message: str) -> None: ...

        error = info

    class State:
        global_step = 1

    follower = _follower([10, 10], tmp_path, Reporter(tmp_path, Quiet()))
    follower.on_train_begin(None, State(), None)
    follower.on_log(None, State(), None, logs={"loss": "0.5", "grad_norm": "1.0"})
    with pytest.raises(TrainerError, match="no longer a number at step 1 of 2") as caught:
        follower.on_log(None, State(), None, logs={"loss": "nan"})
    assert caught.value.kind is FailureKind.LOSS_NOT_FINITE


def test_padding_is_neither_seen_nor_counted() -> None:
    from flywheel_assets.trainer.fit import collate

    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = {key: tensor.tolist() for key, tensor in collate(rows, padding_id=2).items()}
    assert batch == {
        "input_ids": [[5, 6, 7], [8, 2, 2]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[-100, 6, 7], [8, -100, -100]],
    }


@pytest.mark.parametrize(
    ("device", "dtype", "kind"), [("cuda", "auto", FailureKind.NO_GPU), ("cpu", "bfloat16", FailureKind.DTYPE)]
)
def test_a_device_that_is_not_there_or_not_able_is_refused(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, kind: FailureKind
) -> None:
    import torch

    from flywheel_assets.trainer.stack import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hyper = replace(job_for_child(job).hyperparameters, device=device, dtype=dtype)
    with pytest.raises(TrainerError) as caught:
        choose_device(hyper)
    assert caught.value.kind is kind
    assert "training.device" in caught.value.next_step or "dtype" in caught.value.next_step
