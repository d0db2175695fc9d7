"""llama.cpp for real, with a model of a few thousand random weights: what it says is noise, how it is served is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from flywheel_assets.core.rows import Answer, EvalRow, Prediction, Variant
from flywheel_assets.resources.evaluation import evaluate
from flywheel_assets.resources.prediction_cache import PredictionCache
from flywheel_assets.resources.serving import Endpoint, EndpointLost, Serving
from flywheel_assets.settings import Candidate, EvaluationSettings
from tests.trainer.tiny_model import HIDDEN, weather_row, write_gguf

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

REPOSITORY = Path(__file__).resolve().parents[2]
GREEDY = EvaluationSettings(max_tokens=24, max_retries=1, max_error_share=1)
RANK = 4


def write_adapter(path: Path) -> Path:
    """A LoRA adapter of random weights, large enough to change what is said."""
    import gguf

    dice = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0 * RANK)
    for layer in range(2):
        for part in ("attn_q", "attn_output"):
            name = f"blk.{layer}.{part}.weight"
            writer.add_tensor(f"{name}.lora_a", dice.normal(0, 0.3, (RANK, HIDDEN)).astype(np.float32))
            writer.add_tensor(f"{name}.lora_b", dice.normal(0, 0.3, (HIDDEN, RANK)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    model = write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    return Candidate(id="tiny", model=str(model), chat_template="chatml-tools", context_length=1024)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter.gguf")


@pytest.fixture(scope="module")
def endpoint(candidate: Candidate, adapter: Path) -> Iterator[Endpoint]:
    with Serving().deployed(candidate, adapter_gguf=adapter, owner="test", threads=1) as running:
        yield running


def row(number: int) -> EvalRow:
    asked = weather_row(number)
    request = {"messages": asked["prompt"], "tools": json.loads(asked["tools"])}
    return EvalRow(f"r{number}", f"t{number}", f"c{number}", request, Answer("ok"), "single")


def answers(predictions: list[Prediction]) -> list[Answer | None]:
    assert [p.error for p in predictions] == [None] * len(predictions)
    return [p.answer for p in predictions]


ROWS = [row(number) for number in range(6)]


def test_one_server_answers_as_base_and_as_customized(endpoint: Endpoint, candidate: Candidate) -> None:
    base = answers(evaluate(endpoint, ROWS, variant=Variant.BASE, settings=GREEDY))
    customized = answers(evaluate(endpoint, ROWS, variant=Variant.CUSTOMIZED, settings=GREEDY))
    assert all(ours != theirs for ours, theirs in zip(base, customized, strict=True))
    with Serving().deployed(candidate, owner="test", threads=1) as plain:
        assert answers(evaluate(plain, ROWS, variant=Variant.BASE, settings=GREEDY)) == base


def test_what_a_slot_remembers_of_one_variant_never_reaches_the_other(endpoint: Endpoint) -> None:
    one = [ROWS[0]]
    alone = {v: answers(evaluate(endpoint, one * 2, variant=v, settings=GREEDY)) for v in (Variant.BASE, Variant.CUSTOMIZED)}
    for variant in (Variant.BASE, Variant.CUSTOMIZED, Variant.CUSTOMIZED, Variant.BASE, Variant.CUSTOMIZED):
        assert answers(evaluate(endpoint, one, variant=variant, settings=GREEDY)) == alone[variant][:1]


def test_a_second_evaluation_needs_no_server_at_all(candidate: Candidate, adapter: Path, tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        with Serving().deployed(candidate, adapter_gguf=adapter, owner="test", threads=1) as running:
            first = {v: evaluate(running, ROWS, variant=v, settings=GREEDY, cache=cache) for v in Variant}
        # PREFIXED with an empty prefix is BASE, and is not asked twice.
        assert len(cache) == 2 * len(ROWS)
        second = {v: evaluate(running, ROWS, variant=v, settings=GREEDY, cache=cache) for v in Variant}
    for variant in Variant:
        assert answers(second[variant]) == answers(first[variant])
        assert all(prediction.cached for prediction in second[variant])


def test_a_request_longer_than_the_context_is_an_error_of_its_row(endpoint: Endpoint) -> None:
    long = EvalRow("long", "t", "c", {"messages": [{"role": "user", "content": "word " * 2000}]}, Answer("ok"), "single")
    failed, fine = evaluate(endpoint, [long, row(1)], variant=Variant.BASE, settings=GREEDY)
    assert failed.error is not None and failed.error.startswith("HTTP 400") and "context" in failed.error
    assert fine.error is None


def test_a_killed_server_ends_the_evaluation_with_the_reason(candidate: Candidate) -> None:
    def kill(done: int, *_: int) -> None:
        if done == 2:
            newest = max(psutil.Process().children(), key=lambda child: child.create_time())
            os.kill(newest.pid, signal.SIGKILL)

    with (
        pytest.raises(EndpointLost, match="was killed"),
        Serving().deployed(candidate, owner="test", threads=1) as running,
    ):
        evaluate(running, [row(n) for n in range(50)], variant=Variant.BASE, settings=GREEDY, progress=kill)


def test_killing_the_parent_leaves_no_server_behind(candidate: Candidate) -> None:
    code = (
        "import sys, time, psutil\n"
        "from flywheel_assets.resources.serving import Serving\n"
        "from flywheel_assets.settings import Candidate\n"
        "with Serving().deployed(Candidate.model_validate_json(sys.argv[1]), owner='test', threads=1):\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, candidate.model_dump_json()], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(server) and psutil.Process(server).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def test_slots_answer_at_once_as_one_would(candidate: Candidate, endpoint: Endpoint) -> None:
    with Serving().deployed(candidate, owner="test", threads=1, parallel=3) as parallel:
        together = evaluate(parallel, ROWS, variant=Variant.BASE, settings=GREEDY.model_copy(update={"concurrency": 3}))
    one_by_one = evaluate(endpoint, ROWS, variant=Variant.BASE, settings=GREEDY)
    assert answers(together) == answers(one_by_one)
