"""What is repeated, what is not, and what a person is told."""

from __future__ import annotations

import time

import pytest

from flywheel_assets.resources.nemo import polling
from flywheel_assets.resources.nemo.errors import (
    NemoConflict,
    NemoForbidden,
    NemoInvalid,
    NemoMissing,
    NemoRefused,
    NemoUnauthorized,
    NemoUnreachable,
)
from tests.nemo.server import NemoServer
from tests.nemo.wire import Fault
from tests.resources.nemo.conftest import Make

REFUSALS = {
    401: NemoUnauthorized,
    403: NemoForbidden,
    404: NemoMissing,
    409: NemoConflict,
    422: NemoInvalid,
    400: NemoRefused,
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_told_apart_and_asked_once(server: NemoServer, make: Make, status: int) -> None:
    server.faults = [Fault(status, times=9, path="model-deployments")]
    connection = make().connection
    with pytest.raises(NemoRefused, match=f"listing.*{status}") as caught:
        connection.do("listing", lambda: connection.api.deployment.model_deployments.list())
    assert type(caught.value) is REFUSALS[status]
    assert len(server.calls) == 1


@pytest.mark.parametrize("fault", [Fault(429), Fault(500), Fault(503), Fault(cut=True)], ids=str)
def test_trouble_that_passes_is_waited_out(server: NemoServer, make: Make, fault: Fault) -> None:
    fault.times = 2
    server.faults = [fault]
    connection = make().connection
    assert connection.do("listing", lambda: connection.api.deployment.model_deployments.list()).data == []
    assert len(server.calls) == 3


def test_a_server_that_says_when_is_obeyed(server: NemoServer, make: Make) -> None:
    server.faults = [Fault(429, retry_after="1.5")]
    connection = make().connection
    connection.do("listing", lambda: connection.api.namespaces.list())
    first, second = server.calls
    assert second.at - first.at >= 1.5


def test_trouble_that_stays_ends_in_time_with_the_number_of_tries(server: NemoServer, make: Make) -> None:
    server.faults = [Fault(500, times=99)]
    connection = make(retry_s=2).connection
    started = time.monotonic()
    with pytest.raises(NemoUnreachable, match=r"listing: .*tries"):
        connection.do("listing", lambda: connection.api.namespaces.list())
    assert time.monotonic() - started < 4
    assert len(server.calls) > 1


def test_a_cluster_that_is_down_is_said_to_be(server: NemoServer, make: Make) -> None:
    server.stop()
    with pytest.raises(NemoUnreachable, match="Is the cluster up"):
        make(retry_s=0).datastore.ensure_namespace()


def test_pauses_double_have_jitter_and_a_cap() -> None:
    pauses = [[polling.backoff(tries, None) for _ in range(200)] for tries in range(12)]
    assert max(pauses[0]) < min(pauses[2])
    assert len(set(pauses[3])) > 100
    assert max(max(row) for row in pauses) <= 25.0
    assert polling.backoff(0, 10_000.0) <= 66.0


def test_a_look_comes_a_second_after_the_other_and_then_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(polling.time, "sleep", slept.append)
    for number, _ in enumerate(polling.looks(15)):
        if number == 12:
            break
    assert slept[0] == 1.0
    assert slept == sorted(slept)
    assert slept[-1] == 15.0


def test_the_key_is_sent_and_never_told(server: NemoServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMO_KEY", "s3cret-token")
    server.key = "s3cret-token"
    make(api_key_env="NEMO_KEY").datastore.ensure_namespace()
    server.key = "another"
    server.faults = []
    connection = make(api_key_env="NEMO_KEY").connection
    with pytest.raises(NemoUnauthorized) as caught:
        connection.do("listing", lambda: connection.api.namespaces.list())
    assert "s3cret-token" not in str(caught.value)
    monkeypatch.delenv("NEMO_KEY")
    with pytest.raises(NemoUnauthorized, match="NEMO_KEY is not set"):
        make(api_key_env="NEMO_KEY").datastore.ensure_namespace()
