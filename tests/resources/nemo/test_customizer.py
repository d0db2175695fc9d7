"""Trainings: what is asked for, what comes back, and what happens when it does not."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from flywheel_assets.resources.nemo.errors import JobFailed, JobStalled, NemoInvalid, NotEnoughResources
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.resources.nemo.work import CustomizedModel, Files, silent
from flywheel_assets.settings import TrainingSettings
from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault
from tests.resources.nemo.conftest import MODEL, TARGET, Make, nim

pytestmark = pytest.mark.usefixtures("impatient")
SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-4, adapter_dim=32, adapter_dropout=0.1)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": '{"amount": 3}'}}
    tools = json.dumps([{"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}])
    rows = [
        {
            "row_id": f"r{i}",
            "prompt": [{"role": "user", "content": f"case {i}", "name": None}],
            "completion": [{"role": "assistant", "content": "", "tool_calls": [call]}],
            "tools": tools,
        }
        for i in range(40)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "validation.jsonl").write_text(json.dumps(rows[0]) + "\n")
    return Files([tmp_path / "train.jsonl"], [tmp_path / "validation.jsonl"])


def train(nemo: NemoV1, files: Files, inputs: str = "a" * 32, settings: TrainingSettings = SETTINGS) -> CustomizedModel:
    return nemo.customize(nim(), files, settings, inputs=inputs, owner="run-1", say=silent)[0]


def test_a_training_gives_a_model_named_base_at_job_with_its_losses(server: NemoServer, make: Make, files: Files) -> None:
    model = train(make(), files)
    assert model.name == "dfwbp/meta-llama-3.2-1b-instruct@meta-llama-3.2-1b-instruct-aaaaaaaaaaaaaaaa"
    assert (model.steps, model.epochs) == (6, 2)
    assert len(model.train_losses) == 6
    assert model.train_losses[0][1] > model.train_losses[-1][1]
    assert server.left() == []


def test_the_job_is_asked_for_in_the_reference_workflows_form(server: NemoServer, make: Make, files: Files) -> None:
    train(make(), files)
    (call,) = server.asked("POST", "/v1/customization/jobs$")
    assert call.body["custom_fields"].pop("flywheel_home")
    dataset = call.body["dataset"]["name"]
    assert dataset.startswith("flywheel-train-")
    name = "meta-llama-3.2-1b-instruct-aaaaaaaaaaaaaaaa"
    (config,) = server.customizer.configs
    assert call.body == {
        "name": name,
        "namespace": "dfwbp",
        "config": config,
        "dataset": {"name": dataset, "namespace": "dfwbp"},
        "output_model": f"dfwbp/meta-llama-3.2-1b-instruct@{name}",
        "hyperparameters": {
            "training_type": "sft",
            "finetuning_type": "lora",
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 0.0001,
            "seed": 0,
            "lora": {"adapter_dim": 32, "adapter_dropout": 0.1},
        },
        "custom_fields": {"flywheel_inputs": "a" * 32, "flywheel_run": "run-1"},
    }
    assert server.customizer.configs[config]["target"] == TARGET
    assert server.customizer.configs[config]["max_seq_length"] == 8192


def test_rows_are_conversations_whose_arguments_are_objects(server: NemoServer, make: Make, files: Files) -> None:
    train(make(), files)
    (repository,) = server.data_store.repositories.values()
    row = json.loads(repository.files["training/training.jsonl"].splitlines()[0])
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"amount": 3}
    assert row["tools"][0]["function"]["name"] == "refund"
    assert len(repository.files["validation/validation.jsonl"].splitlines()) == 1


def test_fewer_rows_are_a_draw_that_repeats(make: Make, files: Files) -> None:
    drawn = [
        make()
        .customize(nim(), files, SETTINGS.model_copy(update={"max_rows": n}), inputs=f"{n:032d}", owner="r", say=silent)[1]
        .row_ids
        for n in (5, 10)
    ]
    assert len(drawn[0]) == 5
    assert set(drawn[0]) < set(drawn[1])


def test_a_finished_training_of_the_same_inputs_is_taken_up_by_another_flywheel_too(
    server: NemoServer, make: Make, files: Files
) -> None:
    first = train(make(), files)
    assert train(make("another home"), files).job == first.job
    assert len(server.asked("POST", "/v1/customization/jobs$")) == 1


def test_a_training_that_still_runs_is_taken_up(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.training_s = 1.0
    server.faults = [Fault(500, path="/status", times=99)]
    with pytest.raises(Exception, match="tries"):
        train(make(retry_s=0), files)
    server.faults.clear()
    assert len(server.customizer.alive()) == 1
    train(make(), files)
    assert len(server.asked("POST", "/v1/customization/jobs$")) == 1


def test_other_inputs_are_another_training(server: NemoServer, make: Make, files: Files) -> None:
    train(make(), files)
    train(make(), files, inputs="b" * 32)
    assert len(server.customizer.jobs) == 2


def test_a_job_whose_creation_was_answered_into_the_void_is_found_and_not_made_twice(
    server: NemoServer, make: Make, files: Files
) -> None:
    server.faults = [Fault(lost=True, path="/v1/customization/jobs$", method="POST")]
    train(make(), files)
    assert len(server.customizer.jobs) == 1


def test_a_failed_training_says_the_services_last_word(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.fails[MODEL] = "CUDA out of memory in rank 0"
    with pytest.raises(JobFailed, match="CUDA out of memory in rank 0"):
        train(make(), files)
    server.customizer.fails.clear()
    train(make(), files)
    assert len(server.customizer.jobs) == 2


def test_a_training_that_stalls_is_ended_with_its_last_word(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.training_s, server.customizer.stalls_at = 0.2, 40.0
    with pytest.raises(JobStalled, match=r"no progress .* at 40% \(TrainingJobCreated\)"):
        train(make(stall_timeout_minutes=0.01), files)
    assert server.left() == []


def test_a_training_that_takes_too_long_is_ended(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.training_s = 30.0
    with pytest.raises(JobFailed, match=r"took longer than 0.01 minutes"):
        train(make(), files, settings=SETTINGS.model_copy(update={"timeout_minutes": 0.01}))
    assert server.left() == []


def test_a_cluster_without_room_is_said_to_be_full(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.training_s, server.customizer.not_enough_resources = 5.0, True
    with pytest.raises(NotEnoughResources, match=r"NotEnoughResources .*Insufficient nvidia.com/gpu"):
        train(make(resources_timeout_minutes=0), files)
    assert server.left() == []


def test_what_breaks_a_rule_of_the_api_names_the_field(make: Make, files: Files) -> None:
    with pytest.raises(NemoInvalid, match=r"adapter_dim: must be a power of 2"):
        train(make(), files, settings=SETTINGS.model_copy(update={"adapter_dim": 12}))


def test_whoever_is_interrupted_cancels_the_training(
    server: NemoServer, make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.customizer.training_s = 30.0
    nemo = make()
    status = nemo.connection.api.customization.jobs.status

    def interrupted(job: str) -> None:
        status(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(nemo.connection.api.customization.jobs, "status", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(nemo, files)
    assert server.left() == []
    assert server.asked("POST", "/cancel$")


def test_a_restart_of_the_service_in_the_middle_is_waited_out(server: NemoServer, make: Make, files: Files) -> None:
    server.customizer.training_s = 1.0
    nemo = make(retry_s=30)

    def restart() -> None:
        time.sleep(0.4)
        server.stop()
        time.sleep(0.5)
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    assert train(nemo, files).steps == 6
    restarting.join()
    assert len(server.customizer.jobs) == 1


def test_a_job_is_looked_at_once_a_second_at_most(
    server: NemoServer, make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # The product's own pace.
    server.customizer.training_s = 4.0
    train(make(), files)
    looks = [call.at for call in server.asked("GET", "/status$")]
    assert len(looks) >= 3
    assert min(later - earlier for earlier, later in pairwise(looks)) >= 1.0
