"""Publishing over the wire: what arrives, what is sent twice, and what is said when it does not go."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from flywheel_assets.resources.hub import HubForbidden, HubRefused, HubUnauthorized, HubUnreachable, Payload
from flywheel_assets.resources.hub.endpoint import HubEndpoint
from tests.hub_payloads import CARD, LARGE, LARGE_BYTES, expected, make_payload, sha256
from tests.hub_server import READ, SIGNATURE, WRITE, HubServer
from tests.nemo.wire import Fault

REPO, TAG = "acme/flywheel-router-small", "decision-1234"


def hub(server: HubServer, token: str | None = WRITE, *, private: bool = True) -> HubEndpoint:
    return HubEndpoint(server.url, token, private=private)


def hashes_of(server: HubServer, revision: str = "main") -> dict[str, str]:
    """What lies there, by the server's own bytes."""
    files, _ = server.repositories[REPO].at(revision)
    return {name: sha256(content) for name, content in files.items()}


def test_what_is_published_lies_there_private_and_pinned(server: HubServer, payload: Payload) -> None:
    placed = hub(server).publish(REPO, TAG, payload, "the first")
    repository = server.repositories[REPO]
    assert repository.private
    assert repository.tags == {TAG: placed.revision} and placed.revision == repository.commits[-1]
    assert hashes_of(server, TAG) == expected(payload)
    assert repository.large == set(LARGE)
    assert placed.differing(payload) == [] and set(placed.sent) == set(payload.files)
    assert placed.url == f"{server.url}/{REPO}/tree/{TAG}"
    downloaded = HfApi(endpoint=server.url, token=WRITE).list_repo_files(REPO, revision=placed.revision)
    assert sorted(downloaded) == sorted(payload.files)


def test_a_second_run_sends_nothing(server: HubServer, payload: Payload) -> None:
    first = hub(server).publish(REPO, TAG, payload, "the first")
    server.calls.clear()
    received = server.received
    again = hub(server).publish(REPO, TAG, payload, "again")
    assert again.revision == first.revision and again.tag == first.tag and again.sent == ()
    assert {call.method for call in server.calls} == {"GET"}
    assert server.received == received


@pytest.mark.parametrize("cut_at", [100_000, LARGE_BYTES, 300_000])
def test_an_upload_that_is_cut_goes_on_where_it_was(server: HubServer, payload: Payload, cut_at: int) -> None:
    server.cut_at = cut_at
    with pytest.raises(HubUnreachable, match="goes on from here"):
        hub(server).publish(REPO, TAG, payload, "cut")
    # Nothing is shown before all of it is there.
    assert hashes_of(server) == {} and server.repositories[REPO].tags == {}
    whole = cut_at // LARGE_BYTES
    assert len(server.objects) == whole
    server.cut_at, server.received = None, 0
    placed = hub(server).publish(REPO, TAG, payload, "resumed")
    assert hashes_of(server, TAG) == expected(payload) and placed.differing(payload) == []
    assert server.received == (2 - whole) * LARGE_BYTES


def test_a_cut_that_heals_is_not_even_told(server: HubServer, payload: Payload) -> None:
    server.faults = [
        Fault(path="preupload", cut=True),
        Fault(path="/commit/", cut=True),
        Fault(path="/tag/", status=503, times=1),
        Fault(path="/lfs/", method="PUT", status=500, times=2),
    ]
    placed = hub(server).publish(REPO, TAG, payload, "shaky")
    assert hashes_of(server, TAG) == expected(payload) and placed.differing(payload) == []
    assert server.received == 2 * LARGE_BYTES + 2 * LARGE_BYTES  # A fault is answered once the body is there.


def test_a_commit_whose_answer_is_lost_is_made_once(server: HubServer, payload: Payload) -> None:
    server.faults = [Fault(path="/commit/", lost=True)]
    hub(server).publish(REPO, TAG, payload, "lost")
    assert len(server.repositories[REPO].commits) == 2
    assert hashes_of(server, TAG) == expected(payload)


_PUBLISH = """
import sys
from pathlib import Path
from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.resources.hub import collect
from flywheel_assets.resources.hub.endpoint import HubEndpoint
url, token, folder, repository, tag = sys.argv[1:]
payload = collect({path.name: path for path in Path(folder).iterdir()}, CleaningPolicy(), {})
HubEndpoint(url, token, private=True).publish(repository, tag, payload, "killed")
"""


def test_a_hub_whose_commits_are_seen_elsewhere_will_do(server: HubServer, payload: Payload) -> None:
    server.commit_url = "elsewhere"
    placed = hub(server).publish(REPO, TAG, payload, "odd")
    assert placed.revision == server.repositories[REPO].commits[-1] and placed.differing(payload) == []
    assert len(server.repositories[REPO].commits) == 2


def test_a_process_killed_half_way_leaves_what_arrived_for_the_next_one(server: HubServer, tmp_path: Path) -> None:
    payload = make_payload(tmp_path / "adapter")
    second, over = threading.Event(), threading.Event()

    def hold_the_second() -> None:
        if server.objects:
            second.set()
            over.wait(60)

    server.before_body = hold_the_second
    command = [sys.executable, "-c", _PUBLISH, server.url, WRITE, str(tmp_path / "adapter"), REPO, TAG]
    process = subprocess.Popen(command)
    try:
        assert second.wait(60)
    finally:
        process.kill()
        process.wait()
        over.set()
    assert len(server.objects) == 1 and hashes_of(server) == {}
    server.before_body = lambda: None
    server.received = 0
    hub(server).publish(REPO, TAG, payload, "after the kill")
    assert hashes_of(server, TAG) == expected(payload) and server.received == LARGE_BYTES


def test_another_decision_on_the_same_adapter_sends_the_card_alone(server: HubServer, tmp_path: Path) -> None:
    first = hub(server).publish(REPO, TAG, make_payload(tmp_path / "one"), "one")
    server.received = 0
    second = hub(server).publish(REPO, "decision-5678", make_payload(tmp_path / "two", card=CARD + "More."), "two")
    assert second.sent == ("README.md",) and server.received == 0
    assert server.repositories[REPO].tags == {TAG: first.revision, "decision-5678": second.revision}


def test_going_back_to_an_earlier_adapter_sends_no_large_file_and_leaves_its_tag(server: HubServer, tmp_path: Path) -> None:
    old, new = make_payload(tmp_path / "old"), make_payload(tmp_path / "new", seed=1)
    first = hub(server).publish(REPO, TAG, old, "old")
    hub(server).publish(REPO, "decision-5678", new, "new")
    server.received = 0
    back = hub(server).publish(REPO, TAG, old, "back")
    assert back.revision == first.revision and server.received == 0
    assert hashes_of(server) == expected(old) and hashes_of(server, "decision-5678") == expected(new)


def test_a_tag_is_never_moved_to_other_files(server: HubServer, tmp_path: Path) -> None:
    with_prefix = make_payload(tmp_path / "one", prefix='{"messages": []}')
    first = hub(server).publish(REPO, TAG, with_prefix, "with")
    without = make_payload(tmp_path / "two")
    second = hub(server).publish(REPO, TAG, without, "without")
    assert second.tag == f"{TAG}-{without.digest[:8]}" and second.revision != first.revision
    assert server.repositories[REPO].tags[TAG] == first.revision
    # What is not published any more does not stay where people look first.
    assert "prefix.json" not in server.repositories[REPO].files


def test_what_somebody_else_put_there_stays(server: HubServer, payload: Payload) -> None:
    api = HfApi(endpoint=server.url, token=WRITE)
    api.create_repo(REPO, private=True)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=REPO)
    hub(server).publish(REPO, TAG, payload, "beside it")
    assert server.repositories[REPO].files["notes.txt"] == b"mine"


def test_a_push_in_between_is_not_overwritten(server: HubServer, payload: Payload) -> None:
    api = HfApi(endpoint=server.url, token=WRITE)
    api.create_repo(REPO, private=True)

    def push_once() -> None:
        server.before_body = lambda: None
        server.repositories[REPO].commit("f" * 40, {"notes.txt": b"mine"}, set())

    server.before_body = push_once
    hub(server).publish(REPO, TAG, payload, "meanwhile")
    assert server.repositories[REPO].files["notes.txt"] == b"mine"
    assert set(hashes_of(server)) == {"notes.txt", *payload.files}


def test_a_public_repository_gets_nothing_unless_that_is_wanted(server: HubServer, payload: Payload) -> None:
    HfApi(endpoint=server.url, token=WRITE).create_repo(REPO, private=False)
    with pytest.raises(HubRefused, match=r"is public.*nothing was sent"):
        hub(server).publish(REPO, TAG, payload, "private")
    assert hashes_of(server) == {}
    hub(server, private=False).publish(REPO, TAG, payload, "public")
    assert hashes_of(server) == expected(payload)


@pytest.mark.parametrize(
    ("token", "error", "says"),
    [
        (None, HubUnauthorized, "HF_TOKEN is not set"),
        ("hf_nobody_knows_this_one", HubUnauthorized, "HF_TOKEN is not accepted"),
        (READ, HubForbidden, "HF_TOKEN may not write there"),
    ],
)
def test_a_key_that_is_refused_is_told_apart_and_not_tried_again(
    server: HubServer, payload: Payload, token: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        hub(server, token).publish(REPO, TAG, payload, "no")
    assert type(refused.value) is error
    statuses = [call.status for call in server.calls]
    assert statuses.count(401) + statuses.count(403) == 1
    assert token is None or token not in str(refused.value)


def test_no_key_and_no_signed_address_is_in_any_log_or_message(
    server: HubServer, payload: Payload, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    server.faults = [Fault(path="/lfs/", method="PUT", status=500, times=2)]
    hub(server).publish(REPO, TAG, payload, "shaky")
    server.faults = [Fault(path="/lfs/", method="PUT", status=403)]
    server.objects.clear()
    server.repositories.clear()
    with pytest.raises(HubForbidden) as refused:
        hub(server).publish(REPO, TAG, payload, "refused")
    written = caplog.text + str(refused.value) + "".join(capfd.readouterr())
    assert WRITE not in written and SIGNATURE.partition("=")[2] not in written


def test_a_server_that_asks_to_wait_is_asked_a_few_times_and_no_more(server: HubServer, payload: Payload) -> None:
    server.faults = [Fault(path="/repos/create", status=429, times=100)]
    with pytest.raises(HubUnreachable, match=r"it answered 429, 3 tries"):
        hub(server).publish(REPO, TAG, payload, "busy")
    assert sum(call.status == 429 for call in server.calls) == 3


def test_a_hub_that_is_not_there_is_said_so(payload: Payload) -> None:
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:9 could not be reached"):
        HubEndpoint("http://127.0.0.1:9", WRITE, private=True).publish(REPO, TAG, payload, "nobody")


def test_a_key_that_fits_into_no_header_is_refused_before_it_is_sent() -> None:
    with pytest.raises(HubUnauthorized, match="a line feed"):
        HubEndpoint.from_environment(private=True, environment={"HF_TOKEN": "hf_a\nb"})


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(HubUnauthorized, match="Take it out") as refused:
        HubEndpoint.from_environment(private=True, environment={"HF_ENDPOINT": "https://ada:s3cret@hub.example"})
    assert "s3cret" not in str(refused.value)


def test_whose_key_it_is(server: HubServer) -> None:
    assert hub(server).who() == "ada"
    with pytest.raises(HubUnauthorized):
        hub(server, "hf_nobody_knows_this_one").who()
