"""One cell on the test server with a real training and real answers behind it ends with the scores of this machine."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import httpx
import numpy as np
import pytest

from flywheel_assets.core.metrics import score_rows
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, Variant, WorkloadType
from flywheel_assets.resources.nemo.platform import NemoPlatform
from flywheel_assets.resources.platform import Adapter, LocalPlatform, Platform, TrainingOrder
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.resources.training import TrainedAdapter
from flywheel_assets.settings import Settings, parse_settings
from tests.nemo.customizer import Job
from tests.nemo.server import NemoServer
from tests.trainer.tiny_model import weather_row, write_gguf, write_rows

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1200)]
MODEL, TARGET = "meta/tiny", "meta/tiny@2.0"
ROWS, EXAM, MAX_TOKENS = 60, 6, 48
TRAINING = {"epochs": 2, "batch_size": 2, "adapter_dim": 4, "learning_rate": 5e-3, "max_seq_length": 1024, "device": "cpu"}
EVALUATION = {"max_tokens": MAX_TOKENS, "concurrency": 1}


def settings_of(folder: Path, content: Json) -> Settings:
    return parse_settings({"training": TRAINING, "evaluation": EVALUATION, **content}, home=folder / "home", root=folder)


def train(platform: Platform, settings: Settings, files: list[Path], folder: Path) -> TrainedAdapter:
    """A training inside a Dagster run: the trainer's child reports through one."""
    (candidate,) = settings.candidates
    made: list[TrainedAdapter] = []

    @dg.asset
    def adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        order = TrainingOrder(files, [], settings.training_for("w", candidate.id), folder / "out", folder / "work", "a" * 32)
        made.append(platform.train(context, candidate, order))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([adapter], instance=instance)
    return made[0]


def exam() -> list[EvalRow]:
    rows = [weather_row(2000 + number) for number in range(EXAM)]
    return [
        EvalRow(
            row["row_id"],
            row["row_id"],
            row["row_id"],
            {"messages": row["prompt"], "tools": json.loads(row["tools"])},
            Answer.from_message(row["completion"][0]),
            "single_turn",
        )
        for row in rows
    ]


def ask(platform: Platform, settings: Settings, adapter: Adapter | None, variant: Variant) -> list[Prediction]:
    (candidate,) = settings.candidates
    with platform.deployed(candidate, adapter=adapter, owner="run") as endpoint:
        return platform.ask(
            endpoint,
            exam(),
            variant=variant,
            prefix=(),
            settings=settings.evaluation_for("w"),
            progress=lambda *counts: None,
        )


def as_logged(row: Json, number: int) -> Json:
    """A row as the Customizer got it, in the form the trainer of this machine reads."""
    *prompt, answer = row["messages"]
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in answer["tool_calls"]
    ]
    completion = [{"role": "assistant", "content": None, "tool_calls": calls}]
    return {"row_id": f"row-{number}", "prompt": prompt, "completion": completion, "tools": json.dumps(row["tools"])}


def answering(endpoint: Endpoint) -> Any:
    """Answers of a NIM, by llama.cpp: with the adapter where the model's name says so."""

    def answer(body: Json) -> Json:
        variant = Variant.CUSTOMIZED if "@" in body["model"] else Variant.BASE
        asked = {"seed": 0, "max_tokens": MAX_TOKENS, **body, "model": endpoint.model, **endpoint.extra_body(variant)}
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        url = f"{endpoint.base_url}/chat/completions"
        content = httpx.post(url, json=asked, headers=headers, timeout=120, trust_env=False).raise_for_status().json()
        message: Json = content["choices"][0]["message"]
        return message

    return answer


def test_a_cell_ends_with_the_same_scores_on_both_platforms(tmp_path: Path) -> None:
    rows = [weather_row(number) for number in range(ROWS)]
    files = [write_rows(tmp_path / "train.jsonl", rows)]
    write_gguf(tmp_path / "tiny.gguf")
    tiny = {"id": "tiny", "model": "tiny.gguf", "chat_template": "chatml-tools"}
    here = settings_of(tmp_path, {"candidates": [tiny], "local": {"threads": 1}})
    local = LocalPlatform.of(here)
    trained_here = train(local, here, files, tmp_path / "here")
    expected = {variant: ask(local, here, trained_here.gguf, variant) for variant in (Variant.BASE, Variant.CUSTOMIZED)}

    there_trained: dict[str, TrainedAdapter] = {}

    def really_train(job: Job) -> bool:
        """The gate of a training: begins it in a thread when first asked, and opens when it is over."""
        if not begun.is_set():
            begun.set()
            threading.Thread(target=work, args=(job,), daemon=True).start()
        return job.id in there_trained

    def work(job: Job) -> None:
        received = [as_logged(row, number) for number, row in enumerate(job.rows)]
        assert received == rows, "a training row changed on its way"
        again = write_rows(tmp_path / "received.jsonl", received)
        there_trained[job.id] = local_training(again)

    def local_training(file: Path) -> TrainedAdapter:
        # A process of its own would do as well; the training itself is one anyway.
        return train(local, here, [file], tmp_path / "there")

    begun = threading.Event()
    with NemoServer() as server:
        server.customizer.targets[TARGET] = MODEL
        server.customizer.may_finish = really_train
        nim = {"model_name": MODEL, "gpus": 1, "tag": "1", "customization_enabled": True}
        nims = [{**nim, "customizer_configs": {"target": TARGET}, "training": {"max_seq_length": 1024}}]
        there = settings_of(tmp_path / "cluster", {"platform": "nemo", "nemo": server.settings, "nims": nims})
        cluster = NemoPlatform.of(there)
        (candidate,) = there.candidates
        context: Any = SimpleNamespace(run_id="run")
        order = TrainingOrder(files, [], there.training_for("w", candidate.id), tmp_path / "o", tmp_path / "w", "b" * 32)
        name = cluster.train(context, candidate, order).remote_model
        (made,) = there_trained.values()
        with local.deployed(here.candidates[0], adapter=made.gguf, owner="nim") as behind:
            server.answer = answering(behind)
            for mode in ("evaluator", "direct"):
                settings = there.model_copy(update={"nemo": there.nemo.model_copy(update={"evaluation": mode})})
                platform = NemoPlatform.of(settings)
                for variant, adapter in ((Variant.BASE, None), (Variant.CUSTOMIZED, name)):
                    got = ask(platform, settings, adapter, variant)
                    assert [one.answer for one in got] == [one.answer for one in expected[variant]], (mode, variant)
                    kind = WorkloadType.TOOL_CALLING
                    np.testing.assert_equal(score_rows(kind, exam(), got), score_rows(kind, exam(), expected[variant]))
        assert expected[Variant.BASE] != expected[Variant.CUSTOMIZED]
        assert server.left() == []
