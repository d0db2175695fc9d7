"""Payloads in the reference workflow's form hold both to account: the test server takes them, and ours differ where said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.nemo.v1 import eval_configs
from flywheel_assets.resources.nemo.v1.customizer import job_body
from flywheel_assets.resources.nemo.v1.deployments import deployment_body
from flywheel_assets.resources.nemo.work import CustomizationOrder
from flywheel_assets.settings import TrainingSettings
from tests.nemo.server import NemoServer
from tests.resources.nemo.conftest import MODEL, TARGET, Make, nim
from tests.test_nemo_server import EVAL_ROW

GOLDEN: Json = json.loads((Path(__file__).parents[2] / "fixtures" / "nemo_payloads.json").read_text())
SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-4, adapter_dim=32, adapter_dropout=0.1)


def differences(golden: Any, ours: Any, path: str = "") -> list[str]:
    """Dotted paths where two bodies differ."""
    if isinstance(golden, dict) and isinstance(ours, dict):
        keys = sorted(golden.keys() | ours.keys())
        return [found for key in keys for found in differences(golden.get(key), ours.get(key), f"{path}.{key}".strip("."))]
    return [] if golden == ours else [path]


def test_the_test_server_takes_the_reference_workflows_own_requests(server: NemoServer, make: Make) -> None:
    make().datastore.publish("train", {"training/rows.jsonl": b'{"messages": [{"role": "assistant", "content": "a"}]}\n'})
    (dataset,) = server.entities.datasets
    repositories = server.data_store.repositories
    repositories["dfwbp/flywheel-train-1"] = repositories[dataset]
    repositories["dfwbp/flywheel-eval-1"] = repositories[dataset]
    repositories["dfwbp/flywheel-eval-1"].files["eval_data.jsonl"] = EVAL_ROW
    server.customizer.configs[MODEL] = {
        "target": TARGET,
        "training_options": [{"training_type": "sft", "finetuning_type": "lora"}],
    }
    for name, path in {
        "dataset": "/v1/datasets",
        "deployment": "/v1/deployment/model-deployments",
        "customization_job": "/v1/customization/jobs",
        "evaluation_generic": "/v1/evaluation/jobs",
        "evaluation_tools": "/v1/evaluation/jobs",
    }.items():
        answer = httpx.post(f"{server.nemo_url}{path}", json=GOLDEN[name])
        assert answer.is_success, (name, answer.text)
    assert httpx.post(f"{server.nemo_url}/v1/namespaces", json=GOLDEN["namespace"]).status_code == 409


def test_our_deployment_differs_where_said() -> None:
    assert differences(GOLDEN["deployment"], deployment_body(nim(), "dfwbp", "home")) == GOLDEN["differs"]["deployment"]


def test_our_customization_job_differs_where_said() -> None:
    order = CustomizationOrder(nim(), "flywheel-train-2", SETTINGS, "a" * 32, "run-1")
    found = differences(GOLDEN["customization_job"], job_body("dfwbp/config", order, "dfwbp", {"flywheel_run": "run-1"}))
    assert (
        sorted({path.split(".")[0] if path.startswith("dataset") else path for path in found})
        == (GOLDEN["differs"]["customization_job"])
    )


def test_our_generic_evaluation_does_not_differ() -> None:
    task = eval_configs.generic_task("hf://datasets/dfwbp/flywheel-eval-1/eval_data.jsonl")
    ours = {
        "config": eval_configs.evaluation_config({eval_configs.GENERIC_TASK: task}),
        "target": eval_configs.evaluation_target("http://nim.test", MODEL),
    }
    assert ours == GOLDEN["evaluation_generic"]


def test_our_tool_evaluation_differs_where_said() -> None:
    golden = GOLDEN["evaluation_tools"]["config"]["tasks"]["custom-tool-calling"]
    ours = eval_configs.tool_task(golden["dataset"]["files_url"], has_tools=True, tool_choice="auto")
    assert differences(golden, ours) == GOLDEN["differs"]["evaluation_tools"]


@pytest.mark.parametrize(("said", "rating"), [("RATING: 1", "1"), ("RATING:0", "0"), ("RATING: 10", None), ("1", None)])
def test_a_rating_is_read_as_it_was_meant(said: str, rating: str | None) -> None:
    found = re.search(eval_configs.RATING, said)
    assert (found.group(1) if found else None) == rating
