"""The NeMo test server keeps the rules it is there for: a double that accepts anything would prove nothing."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import nemo_microservices
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from nemo_microservices import NeMoMicroservices

from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault

TRAIN_ROW = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
EVAL_ROW = (
    b'{"request": {"messages": [{"role": "user", "content": "q"}]}, '
    b'"response": {"choices": [{"message": {"content": " The fan. "}}]}}\n'
)
LORA = {"training_type": "sft", "finetuning_type": "lora", "epochs": 1, "lora": {"adapter_dim": 16}}


@pytest.fixture
def server() -> Iterator[NemoServer]:
    with NemoServer() as server:
        server.customizer.targets["meta/small@2.0"] = "meta/small"
        yield server


@pytest.fixture
def client(server: NemoServer) -> NeMoMicroservices:
    return NeMoMicroservices(base_url=server.nemo_url, max_retries=0, _strict_response_validation=True)


def hub(server: NemoServer) -> HfApi:
    return HfApi(endpoint=f"{server.datastore_url}/v1/hf", token="token")


def furnish(server: NemoServer, client: NeMoMicroservices, rows: bytes = TRAIN_ROW) -> None:
    """A namespace with a dataset and a configuration, the way a client makes them."""
    client.namespaces.create(id="ns")
    httpx.post(f"{server.datastore_url}/v1/datastore/namespaces", data={"namespace": "ns"}).raise_for_status()
    hub(server).create_repo("ns/d", repo_type="dataset")
    for path, content in (("training/rows.jsonl", rows), ("eval_data.jsonl", EVAL_ROW)):
        hub(server).upload_file(path_or_fileobj=io.BytesIO(content), path_in_repo=path, repo_id="ns/d", repo_type="dataset")
    client.datasets.create(files_url="hf://datasets/ns/d", name="d", namespace="ns")
    client.customization.configs.create(
        name="cfg",
        namespace="ns",
        target="meta/small@2.0",
        max_seq_length=4096,
        training_precision="bf16-mixed",
        training_options=[{"training_type": "sft", "finetuning_type": "lora", "num_gpus": 1, "micro_batch_size": 1}],
    )


def start_job(client: NeMoMicroservices, **changed: Any) -> Any:
    dataset = {"name": "d", "namespace": "ns"}
    body: Any = {"config": "ns/cfg", "dataset": dataset, "hyperparameters": LORA, "output_model": "ns/out"}
    return client.customization.jobs.create(**{**body, **changed})


def deploy(client: NeMoMicroservices, name: str, gpus: int = 1) -> Any:
    nim = {"gpu": gpus, "image_name": "nim/small", "image_tag": "1", "pvc_size": "25Gi"}
    config: Any = {"model": f"meta/{name}", "nim_deployment": nim}
    return client.deployment.model_deployments.create(name=name, namespace="ns", config=config)


def start_evaluation(server: NemoServer, client: NeMoMicroservices, model: str) -> Any:
    metrics = {"f1": {"type": "f1", "params": {"ground_truth": "{{ item.response.choices[0].message.content | trim }}"}}}
    task: Any = {
        "type": "chat-completion",
        "dataset": "hf://datasets/ns/d/eval_data.jsonl",
        "params": {"template": {"messages": "{{ item.request.messages | tojson }}"}},
        "metrics": metrics,
    }
    endpoint = {"url": f"{server.nim_url}/v1/chat/completions", "model_id": model}
    target: Any = {"type": "model", "model": {"api_endpoint": endpoint}}
    return client.evaluation.jobs.create(config={"type": "custom", "tasks": {"chat-completion": task}}, target=target)


def test_a_body_the_sdk_would_not_type_is_refused_with_the_field(server: NemoServer) -> None:
    answer = httpx.post(f"{server.nemo_url}/v1/customization/jobs", json={"config": "ns/cfg", "dataset": "ns/d"})
    assert answer.status_code == 422
    assert ["hyperparameters"] in [fault["loc"] for fault in answer.json()["detail"]]


def test_a_field_nobody_knows_is_refused(server: NemoServer) -> None:
    answer = httpx.post(f"{server.nemo_url}/v1/namespaces", json={"id": "ns", "colour": "green"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "unknown fields: colour")


def test_what_a_job_refers_to_must_exist(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client)
    for changed in ({"config": "ns/none"}, {"dataset": {"name": "none", "namespace": "ns"}}):
        with pytest.raises(nemo_microservices.NotFoundError):
            start_job(client, **changed)
    with pytest.raises(nemo_microservices.NotFoundError):
        client.datasets.create(files_url="hf://datasets/x/d", name="d", namespace="nowhere")


def test_a_rank_that_is_no_power_of_two_is_refused(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client)
    with pytest.raises(nemo_microservices.UnprocessableEntityError, match="power of 2"):
        start_job(client, hyperparameters={**LORA, "lora": {"adapter_dim": 12}})


def test_names_are_taken_once(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client)
    with pytest.raises(nemo_microservices.ConflictError):
        client.namespaces.create(id="ns")
    assert httpx.post(f"{server.datastore_url}/v1/datastore/namespaces", data={"namespace": "ns"}).status_code == 409
    with pytest.raises(HfHubHTTPError):
        hub(server).create_repo("ns/d", repo_type="dataset")
    deploy(client, "small")
    with pytest.raises(nemo_microservices.ConflictError, match="already exists"):
        deploy(client, "small")


def test_a_job_advances_with_time_and_its_model_is_served_once_it_is_synced(
    server: NemoServer, client: NeMoMicroservices
) -> None:
    server.customizer.training_s, server.deployments.sync_s = 0.2, 0.2
    furnish(server, client)
    deploy(client, "small")
    job = start_job(client)
    assert job.output_model == f"ns/out@{job.id}"
    assert client.customization.jobs.status(job.id).status == "running"
    time.sleep(0.25)
    assert client.customization.jobs.status(job.id).status == "completed"
    assert job.output_model not in server.deployments.served()
    time.sleep(0.25)
    assert job.output_model in server.deployments.served()


def test_rows_the_trainer_could_not_read_fail_the_job(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client, rows=b'{"prompt": "q", "completion": "a"}\n')
    details = client.customization.jobs.status(start_job(client).id)
    assert details.status == "failed"
    assert "no `messages`" in str(details.status_logs)


def test_a_deployment_waits_for_the_gpus_of_another(server: NemoServer, client: NeMoMicroservices) -> None:
    client.namespaces.create(id="ns")
    server.deployments.gpus = 2
    deploy(client, "large", gpus=2)
    waiting = deploy(client, "small")
    assert waiting.status_details.status == "pending"
    client.deployment.model_deployments.delete("large", namespace="ns")
    assert client.deployment.model_deployments.retrieve("small", namespace="ns").status_details.status == "ready"


def test_an_evaluation_asks_the_model_and_packs_every_row(server: NemoServer, client: NeMoMicroservices) -> None:
    server.answer = lambda body: {"role": "assistant", "content": "a fan"}
    furnish(server, client)
    deploy(client, "small")
    job = start_evaluation(server, client, "meta/small")
    assert client.evaluation.jobs.status(job.id).progress == 100.0
    tasks = client.evaluation.jobs.results(job.id).tasks
    assert tasks is not None
    metrics = tasks["chat-completion"].metrics
    assert metrics is not None
    assert metrics["f1"].scores is not None
    assert metrics["f1"].scores["f1_score"].value == 1.0
    with zipfile.ZipFile(io.BytesIO(client.evaluation.jobs.download_results(job.id).read())) as archive:
        assert b"a fan" in archive.read("results/chat-completion/rows.jsonl")


def test_an_evaluation_of_a_model_nobody_serves_fails(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client)
    job = start_evaluation(server, client, "meta/absent")
    assert client.evaluation.jobs.retrieve(job.id).status == "failed"


def test_large_files_go_the_lfs_way_and_bytes_must_fit_their_name(server: NemoServer, client: NeMoMicroservices) -> None:
    furnish(server, client)
    server.data_store.lfs_from = 100
    hub(server).upload_file(
        path_or_fileobj=io.BytesIO(b"x" * 1000), path_in_repo="big.bin", repo_id="ns/d", repo_type="dataset"
    )
    assert server.data_store.repositories["ns/d"].files["big.bin"] == b"x" * 1000
    assert httpx.put(f"{server.datastore_url}/v1/hf/lfs/{'0' * 64}", content=b"y").status_code == 422


def test_faults_come_on_demand_and_a_lost_answer_was_still_obeyed(server: NemoServer, client: NeMoMicroservices) -> None:
    server.faults = [Fault(500, path="/v1/namespaces"), Fault(lost=True, path="/v1/namespaces")]
    with pytest.raises(nemo_microservices.InternalServerError):
        client.namespaces.create(id="ns")
    with pytest.raises(nemo_microservices.APIConnectionError):
        client.namespaces.create(id="ns")
    assert client.namespaces.retrieve("ns").id == "ns"
    assert [call.status for call in server.calls] == [500, 0, 200]


def test_what_it_holds_survives_a_restart_on_the_same_ports(server: NemoServer, client: NeMoMicroservices) -> None:
    client.namespaces.create(id="ns")
    server.stop()
    with pytest.raises(nemo_microservices.APIConnectionError):
        client.namespaces.retrieve("ns")
    server.start()
    assert client.namespaces.retrieve("ns").id == "ns"


def test_a_wrong_key_is_refused(client: NeMoMicroservices, server: NemoServer) -> None:
    server.key = "secret"
    with pytest.raises(nemo_microservices.AuthenticationError):
        client.namespaces.create(id="ns")
