"""Endpoints that lie: an errored row each, in bounded time and memory, and nothing of ours goes where it should not."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from flywheel_assets.core.replay import read_completion
from flywheel_assets.resources.asking import Patience, Question, Reply, ask_questions
from flywheel_assets.resources.bounded_http import MAX_BYTES
from flywheel_assets.resources.serving import Endpoint, ServingError
from flywheel_assets.resources.serving.openai_api import RemoteModel, remote_endpoint
from tests.security.hostile_server import HostileServer, http

KEY = "sk-very-secret-key-0123456789"
JSON = "Content-Type: application/json"
BODY = {"model": "double", "messages": [{"role": "user", "content": "my secret question"}]}


def completion(content: str = "fine", **more: object) -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], **more}).encode()


def asked(url: str, *, timeout_s: float = 5.0, retries: int = 0, key: str | None = KEY) -> Reply:
    endpoint = Endpoint(url, "double", "build", "model", "template", api_key=key)
    patience = Patience(1, timeout_s, retries, "evaluation")
    question = Question("row", BODY, "key")
    return asyncio.run(ask_questions(endpoint, [question], patience=patience, cache=None, progress=None))["row"]


def without_end(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def drop_by_drop(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def bomb(encoding: str, packed: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, request: connection.sendall(http(packed, JSON, f"Content-Encoding: {encoding}"))


def says(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, request: connection.sendall(answer)


GIGABYTE = gzip.compress(b"[" * (1 << 28))
LIES: dict[str, tuple[Callable[[socket.socket, bytes], None], str]] = {
    "no end": (without_end, "longer than 8 MB"),
    "drop by drop": (drop_by_drop, "no answer within"),
    "gzip bomb": (bomb("gzip", GIGABYTE), "unpacks to more than 8 MB"),
    "gzip in gzip": (bomb("gzip, gzip", gzip.compress(GIGABYTE)), "unpacks to more than 8 MB"),
    "deflate bomb": (bomb("deflate", zlib.compress(b"0" * (1 << 26))), "unpacks to more than 8 MB"),
    "unknown packing": (bomb("zstd", b"\x28\xb5\x2f\xfd"), "packed as 'zstd'"),
    "broken packing": (bomb("gzip", b"not gzip"), "broken"),
    "nested": (says(http(b'{"choices": ' + b"[" * 100_000, JSON)), "not JSON"),
    "nested arguments": (
        says(http(b'{"choices": [{"message": {"content": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}]}", JSON)),
        "not JSON",
    ),
    "cut short": (says(http(completion(), JSON, length=10_000)), "connection failed"),
    "no http": (says(b"\x00\xff" * 1000), "connection failed"),
    "endless header": (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000_000), "connection failed"),
    "half a line": (says(b"HTTP/1.1 200"), "connection failed"),
    "an image": (says(http(b"\x89PNG\r\n", "Content-Type: image/png")), "not JSON"),
    "a page": (says(http(b"<html>", "Content-Type: text/html")), "not JSON"),
    "nothing": (says(http(b"", JSON)), "not JSON"),
    "list": (says(http(b"[]", JSON)), "no chat completion"),
    "huge number": (says(http(b'{"choices": ' + b"9" * 100_000 + b"}", JSON)), "not JSON"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_an_errored_row_in_bounded_time_and_memory(lie: str) -> None:
    answer, told = LIES[lie]
    with HostileServer(answer) as server:
        tracemalloc.start()
        began = time.monotonic()
        reply = asked(server.url, timeout_s=3.0)
        took, (_, most) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert reply.answer is None and told in str(reply.error), reply.error
    assert took < 20 and most < 12 * MAX_BYTES


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_no_conversation_is_sent_on(status: str) -> None:
    with HostileServer(says(http(completion(), JSON))) as thief:
        to = f"Location: {thief.url}/chat/completions"
        with HostileServer(says(http(b"", to, status=status))) as server:
            reply = asked(server.url)
        assert thief.requests == []
        assert reply.error is not None and f"HTTP {status[:3]}: it sends us to {thief.url}" in reply.error


def test_a_list_of_models_elsewhere_is_not_fetched_with_our_key() -> None:
    with HostileServer(says(b"")) as thief:

        class Sends(HostileServer):
            def _speak(self, connection: socket.socket) -> None:
                with connection:
                    connection.recv(65536)
                    connection.sendall(http(b"", f"Location: {thief.url}/models", status="307 Temporary Redirect"))

        with Sends(says(b"")) as server, pytest.raises(ServingError, match="it sends us to"):
            remote_endpoint(RemoteModel("candidate 'x'", server.url))
        assert thief.requests == []


@pytest.mark.parametrize("models", [b"[" * 100_000, b'{"data": ' + b" " * (9 << 20) + b"[]}", b'{"data": 7}', b"\xff"])
def test_a_list_of_models_that_is_none_is_a_sentence(models: bytes) -> None:
    with HostileServer(says(b""), models=models) as server, pytest.raises(ServingError, match="candidate 'x'"):
        remote_endpoint(RemoteModel("candidate 'x'", server.url))


def test_our_key_in_an_answer_or_an_error_is_not_kept() -> None:
    with HostileServer(says(http(completion(f"your key is {KEY}"), JSON))) as server:
        answer = asked(server.url).answer
    assert answer is not None and KEY not in repr(answer) and "***" in repr(answer)
    refusal = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    with HostileServer(says(http(refusal, JSON, status="401 Unauthorized"))) as server:
        assert KEY not in repr(asked(server.url))


def test_a_password_in_a_url_is_in_no_message_and_in_no_identity() -> None:
    with HostileServer(says(http(completion(), JSON))) as server:
        url = server.url.replace("http://", "http://user:hunter22@")
        endpoint = remote_endpoint(RemoteModel("candidate 'x'", url))
        assert "hunter22" not in endpoint.model_identity + endpoint.shown_url
        with pytest.raises(ServingError) as refused:
            remote_endpoint(RemoteModel("candidate 'x'", url, model_name="other"))
    with pytest.raises(ServingError) as unreachable:
        remote_endpoint(RemoteModel("candidate 'x'", "http://user:hunter22@127.0.0.1:1/v1"))
    assert "hunter22" not in f"{refused.value} {unreachable.value}"


@pytest.mark.parametrize("wait", ["-5", "1e9", "99999999999999", "soon", "²", "", "Fri, 31 Dec 9999 23:59:59 GMT", "0"])
def test_a_server_that_asks_for_an_absurd_pause_is_not_obeyed(wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_assets.resources import asking

    monkeypatch.setattr(asking, "_LONGEST_PAUSE_S", 0.2)
    answer = http(b"{}", JSON, status="429 Too Many Requests").replace(
        b"Connection", f"Retry-After: {wait}\r\nConnection".encode()
    )
    with HostileServer(says(answer)) as server:
        began = time.monotonic()
        reply = asked(server.url, retries=2)
        assert len(server.requests) == 3 and time.monotonic() - began < 5
    assert reply.error is not None and "HTTP 429" in reply.error


@pytest.mark.parametrize(
    "usage",
    [
        *("[]", '"7"', "1", '{"prompt_tokens_details": 3}', '{"prompt_tokens": Infinity, "completion_tokens": "9"}'),
        *(f'{{"prompt_tokens": {value}}}' for value in ("1e308", "1e400", "NaN", "-1", "true", "9" * 400)),
    ],
)
def test_absurd_numbers_of_tokens_lose_no_answer_and_are_not_believed(usage: str) -> None:
    answer, used = read_completion(completion()[:-1] + b', "usage": ' + usage.encode() + b"}")
    assert answer.content == "fine" and used.prompt is None and used.cached is None
