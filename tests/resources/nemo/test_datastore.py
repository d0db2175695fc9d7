"""Datasets: complete or absent, uploaded once, small and large."""

from __future__ import annotations

from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfUriError
from pytest import MonkeyPatch

from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault
from tests.resources.nemo.conftest import Make

FILES = {"training/training.jsonl": b'{"messages": []}\n', "validation/validation.jsonl": b"{}\n"}


def test_a_dataset_is_made_with_its_namespace_and_registered_last(server: NemoServer, make: Make) -> None:
    name = make().datastore.publish("train", FILES)
    assert server.data_store.repositories[f"dfwbp/{name}"].files == FILES
    assert server.entities.datasets[f"dfwbp/{name}"]["files_url"] == f"hf://datasets/dfwbp/{name}"
    order = [call.path for call in server.calls if call.method == "POST"]
    assert order.index("/v1/datasets") == len(order) - 1


def test_the_same_files_are_not_uploaded_again_by_anybody(server: NemoServer, make: Make) -> None:
    first = make().datastore.publish("train", FILES)
    server.calls.clear()
    assert make("another home").datastore.publish("train", FILES) == first
    assert [call.method for call in server.calls] == ["GET"]


def test_other_files_are_another_dataset(make: Make) -> None:
    datastore = make().datastore
    assert datastore.publish("train", FILES) != datastore.publish("train", {"training/training.jsonl": b"other\n"})


def test_large_files_are_uploaded_as_lfs_and_not_as_xet(server: NemoServer, make: Make) -> None:
    server.data_store.lfs_from = 1000
    large = {"training/training.jsonl": b"x" * 5000}
    name = make().datastore.publish("train", large)
    assert server.data_store.repositories[f"dfwbp/{name}"].files == large
    assert server.asked("PUT", "/v1/hf/lfs/")
    assert not [call for call in server.calls if "xet" in call.path]


def test_an_upload_that_was_cut_short_is_completed_by_the_next_try(server: NemoServer, make: Make) -> None:
    server.faults = [Fault(cut=True, path="commit/main"), Fault(500, path="/v1/datasets$", method="POST")]
    name = make().datastore.publish("train", FILES)
    assert server.data_store.repositories[f"dfwbp/{name}"].files == FILES
    assert f"dfwbp/{name}" in server.entities.datasets


def test_a_commit_whose_answer_the_client_cannot_read_counts_if_the_files_are_there(
    server: NemoServer, make: Make, monkeypatch: MonkeyPatch
) -> None:
    commit = HfApi.create_commit

    def commits_and_stumbles(self: HfApi, *args: Any, **kwargs: Any) -> None:
        commit(self, *args, **kwargs)
        raise HfUriError("Invalid HF URI 'x'", "no route")

    monkeypatch.setattr(HfApi, "create_commit", commits_and_stumbles)
    name = make().datastore.publish("train", FILES)
    assert server.data_store.repositories[f"dfwbp/{name}"].files == FILES
