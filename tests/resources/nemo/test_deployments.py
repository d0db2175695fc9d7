"""Deployments: up while somebody uses them, shared, never ended under anybody, and gone afterwards."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from flywheel_assets.resources.nemo.errors import JobFailed, NemoConflict, NemoUnreachable
from flywheel_assets.resources.nemo.v1 import NemoV1
from flywheel_assets.resources.nemo.work import silent
from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault
from tests.resources.nemo.conftest import MODEL, Make, nim

pytestmark = pytest.mark.usefixtures("impatient")
NAME = "dfwbp/meta-llama-3.2-1b-instruct"
PATH = "/v1/deployment/model-deployments"


def use(nemo: NemoV1, owner: str = "run-1") -> None:
    with nemo.deployments.using(nim(), owner, silent):
        nemo.deployments.await_model(nim(), MODEL, silent)


def test_a_nim_is_up_inside_the_block_and_gone_behind_it(server: NemoServer, make: Make) -> None:
    server.deployments.deploy_s = 0.3
    nemo = make()
    with nemo.deployments.using(nim(), "run-1", silent):
        nemo.deployments.await_model(nim(), MODEL, silent)
        assert nemo.deployments.served_models() == [MODEL]
    assert server.left() == []
    assert nemo.ledger.things() == []


def test_the_deployment_is_asked_for_in_the_reference_workflows_form(server: NemoServer, make: Make) -> None:
    use(make())
    (call,) = server.asked("POST", PATH)
    home = call.body.pop("custom_fields")
    assert call.body == {
        "name": "meta-llama-3.2-1b-instruct",
        "namespace": "dfwbp",
        "config": {
            "model": MODEL,
            "nim_deployment": {
                "image_name": f"nvcr.io/nim/{MODEL}",
                "image_tag": "1.8.3",
                "pvc_size": "25Gi",
                "gpu": 1,
                "additional_envs": {"NIM_GUIDED_DECODING_BACKEND": "outlines"},
            },
        },
    }
    assert list(home) == ["flywheel_home"]
    assert "/" not in home["flywheel_home"]


def test_two_runs_share_one_deployment_and_the_last_one_ends_it(server: NemoServer, make: Make) -> None:
    first, second = make(), make()
    with first.deployments.using(nim(), "run-1", silent):
        with second.deployments.using(nim(), "run-2", silent):
            assert len(server.asked("POST", PATH)) == 1
        assert server.left() == ["dfwbp/meta-llama-3.2-1b-instruct"]
    assert server.left() == []


def test_a_judge_that_is_also_a_candidate_is_not_shut_down_under_its_users(server: NemoServer, make: Make) -> None:
    nemo = make()
    with nemo.deployments.using(nim(), "candidate", silent):
        with nemo.deployments.using(nim(customization_enabled=False), "judge", silent):
            pass
        assert server.deployments.by_name


def test_somebody_elses_deployment_is_used_and_left(server: NemoServer, make: Make) -> None:
    with make("theirs").deployments.using(nim(), "run-9", silent):
        nemo = make("ours")
        use(nemo)
        assert list(server.deployments.by_name) == [NAME]
        assert nemo.sweep(0, silent) == []
        assert list(server.deployments.by_name) == [NAME]


def test_somebody_elses_deployment_of_another_image_is_refused(make: Make) -> None:
    with (
        make("theirs").deployments.using(nim(tag="2.0"), "run-9", silent),
        pytest.raises(NemoConflict, match=r"somebody else's and runs another image than '1.8.3'"),
    ):
        use(make("ours"))


def test_a_name_that_is_taken_counts_whatever_status_says_so(server: NemoServer, make: Make) -> None:
    server.deployments.duplicate_status = 500
    nemo = make()
    server.faults = [Fault(lost=True, path=PATH, method="POST")]
    use(nemo)
    assert server.left() == []


def test_a_model_that_syncs_late_is_waited_for(server: NemoServer, make: Make) -> None:
    nemo = make()
    server.deployments.deploy_s = 0.6
    started = time.monotonic()
    use(nemo)
    assert time.monotonic() - started >= 0.6


def test_a_deployment_that_never_gets_ready_says_what_it_waited_for(server: NemoServer, make: Make) -> None:
    server.deployments.never_ready.add("meta-llama-3.2-1b-instruct")
    with pytest.raises(JobFailed, match=r"is pending after .* minutes .*Are 1 GPUs free, and does image tag '1.8.3' exist"):
        use(make(deploy_timeout_minutes=0.01))
    assert server.left() == []


def test_a_deletion_that_is_carried_out_late_is_made_good(server: NemoServer, make: Make) -> None:
    server.deployments.deploy_s = 1.0
    nemo = make()
    with nemo.deployments.using(nim(), "run-1", silent):
        deleting = threading.Timer(0.3, server.deployments.by_name.clear)
        deleting.start()
        nemo.deployments.await_model(nim(), MODEL, silent)
        assert len(server.asked("POST", PATH)) == 2
    assert server.left() == []


def test_a_deployment_that_fails_says_why(server: NemoServer, make: Make) -> None:
    server.deployments.fails["meta-llama-3.2-1b-instruct"] = "ImagePullBackOff"
    with pytest.raises(JobFailed, match="ImagePullBackOff"):
        use(make())
    assert server.left() == []


def test_a_nim_without_a_tag_is_somebody_elses_and_only_waited_for(server: NemoServer, make: Make) -> None:
    standing = nim(tag=None, gpus=None, pvc_size=None)
    nemo = make(sync_timeout_minutes=0.01)
    server.deployments.standing_models.add(MODEL)
    with nemo.deployments.using(standing, "run-1", silent):
        nemo.deployments.await_model(standing, MODEL, silent)
    server.deployments.standing_models.clear()
    with pytest.raises(JobFailed, match="was not listed"):
        nemo.deployments.await_model(standing, MODEL, silent)
    assert not server.asked("POST", PATH)


def test_candidates_run_side_by_side_within_the_budget(server: NemoServer, make: Make) -> None:
    most: list[int] = []

    def run(number: int) -> None:
        one = nim(model_name=f"meta/m{number}")
        with make(gpu_budget=2).deployments.using(one, f"run-{number}", silent):
            most.append(len(server.deployments.by_name))
            time.sleep(0.5)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 2
    assert server.deployments.most_gpus == 2
    assert server.left() == []


def test_what_cannot_be_ended_is_left_to_the_sweep_which_ends_it(server: NemoServer, make: Make) -> None:
    nemo = make()
    server.faults = [Fault(500, path=PATH, method="DELETE", times=99)]
    use(nemo)
    assert server.left() == ["dfwbp/meta-llama-3.2-1b-instruct"]
    server.faults.clear()
    assert nemo.sweep(60, silent) == []
    (ended,) = nemo.sweep(0, silent)
    assert (ended.kind, ended.name) == ("deployment", "meta-llama-3.2-1b-instruct")
    assert server.left() == []


def test_what_a_lost_ledger_forgot_is_found_by_its_mark_and_others_things_are_not(
    server: NemoServer, make: Make, tmp_path: Path
) -> None:
    with make("theirs").deployments.using(nim(model_name="meta/other"), "run-9", silent):
        server.faults = [Fault(500, path=PATH, method="DELETE", times=99)]
        use(make())
        server.faults.clear()
        (tmp_path / "home" / "nemo.sqlite").unlink()
        assert make().sweep(0, silent) == []
        (ended,) = make().sweep(0, silent, rediscover=True)
        assert ended.name == "meta-llama-3.2-1b-instruct"
        assert server.left() == ["dfwbp/meta-other"]


def test_what_is_in_use_is_never_swept(server: NemoServer, make: Make) -> None:
    with ExitStack() as stack:
        stack.enter_context(make().deployments.using(nim(), "run-1", silent))
        assert make().sweep(0, silent) == []
        assert server.deployments.by_name


def test_a_cluster_that_goes_down_under_a_wait_is_said_to_be(server: NemoServer, make: Make) -> None:
    server.deployments.never_ready.add("meta-llama-3.2-1b-instruct")
    nemo = make(retry_s=0)
    with pytest.raises(NemoUnreachable), nemo.deployments.using(nim(), "run-1", silent):
        server.stop()
        nemo.deployments.await_model(nim(), MODEL, silent)
    server.start()
    assert len(nemo.sweep(0, silent)) == 1
    assert server.left() == []
