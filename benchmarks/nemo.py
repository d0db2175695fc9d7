"""NeMo: three candidates beside each other against the slowest of them alone, on the test server of tests/nemo."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.figure import figure
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.resources.nemo.work import Files, silent
from flywheel_assets.settings import NemoSettings, Nim, TrainingSettings
from tests.nemo.server import NemoServer

# Seconds of one training: the cluster's work, which nothing here can hurry.
TRAINING_S = {"meta/slow": 20.0, "meta/middle": 14.0, "meta/fast": 8.0}
_ROW = '{"row_id": "r", "prompt": [{"role": "user", "content": "q"}], "tools": "[]", "completion": [%s]}\n'
_ANSWER = '{"role": "assistant", "content": "a"}'


def bench_parallel_ratio() -> dict[str, object]:
    """Wall time of three cells (deploy, train, wait for the model) over that of the slowest one alone; 1.3 at most."""
    alone = _wall_s(["meta/slow"])
    together = _wall_s(list(TRAINING_S))
    return figure(
        "nemo_parallel_ratio", round(together / alone, 2), "ratio", "lower", 1.3, peer={"one_by_one": _sum_ratio()}
    )


def _sum_ratio() -> float:
    return round(sum(TRAINING_S.values()) / max(TRAINING_S.values()), 2)


def _wall_s(models: Iterable[str]) -> float:
    with tempfile.TemporaryDirectory() as folder, NemoServer() as server:
        server.customizer.targets = {f"{model}@2.0": model for model in TRAINING_S}
        server.customizer.seconds_of = dict(TRAINING_S)
        server.deployments.deploy_s = server.deployments.sync_s = 1.0
        home = Path(folder)
        (home / "train.jsonl").write_text(_ROW % _ANSWER, encoding="utf-8")
        threads = [threading.Thread(target=_cell, args=(server.settings, home, model)) for model in models]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - started


def _cell(settings: dict[str, Any], home: Path, model: str) -> None:
    nemo = NemoV1(NemoSettings.model_validate(settings), home)
    config = {"target": f"{model}@2.0"}
    nim = Nim.model_validate(
        {"model_name": model, "gpus": 1, "tag": "1", "customization_enabled": True, "customizer_configs": config}
    )
    with nemo.deployments.using(nim, model, silent):
        files, inputs = Files([home / "train.jsonl"], []), nim.candidate_id.ljust(32, "0")
        made, _ = nemo.customize(nim, files, TrainingSettings(), inputs=inputs, owner=model, say=silent)
        nemo.deployments.await_model(nim, made.name, silent)
