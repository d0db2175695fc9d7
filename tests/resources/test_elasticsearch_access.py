"""Who we are, on the wire: TLS with an authority of one's own, API keys, passwords; and the client of the major before."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets.resources.trace_stores import TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch import Access, Connection, ElasticsearchTraceStore
from tests.elasticsearch_server import ElasticsearchServer, fresh_index
from tests.faulty_proxy import FaultyProxy, locked
from tests.resources.test_local_trace_store import ROOT, ids, read, record

KEY = "c2VjcmV0LWtleS1pZDpzZWNyZXQ="


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody but its own file vouches for, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("authority")
    cert, key = folder / "ca.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert, key


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, authority: tuple[Path, Path]) -> Iterator[FaultyProxy]:
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    proxy = FaultyProxy(server.url, tls=authority)
    yield proxy
    proxy.close()
    server.kill()


def store(proxy: FaultyProxy, **environment: str) -> ElasticsearchTraceStore:
    access = Access.from_environment({"ELASTICSEARCH_URL": proxy.url, **environment})
    return ElasticsearchTraceStore(Connection(access, timeout_s=5, retry_s=1), fresh_index())


@pytest.mark.parametrize("kind", ["key", "password"])
def test_records_go_through_tls_and_every_request_says_who_asks(
    proxy: FaultyProxy, authority: tuple[Path, Path], kind: str
) -> None:
    given = {"ELASTICSEARCH_CA_CERTS": str(authority[0])}
    if kind == "key":
        expected, given = f"ApiKey {KEY}", {**given, "ELASTICSEARCH_API_KEY": KEY}
    else:
        expected = "Basic " + base64.b64encode(b"ann:p@ss").decode()
        given["ELASTICSEARCH_URL"] = proxy.url.replace("https://", "https://ann:p%40ss@")
    proxy.fault = locked(expected)
    proxy.requests.clear()
    found = store(proxy, **given)
    assert found.add([record(f"r{n}") for n in range(20)]).new == 20
    assert sorted(ids(read(found))) == sorted(f"r{n}" for n in range(20))
    assert proxy.requests and {request.authorization for request in proxy.requests} == {expected}


def test_a_server_that_nobody_vouches_for_is_refused_with_what_to_set(proxy: FaultyProxy) -> None:
    proxy.requests.clear()
    with pytest.raises(TraceStoreError, match=r"no trusted TLS connection.*ELASTICSEARCH_CA_CERTS"):
        store(proxy, ELASTICSEARCH_API_KEY=KEY).workloads()
    assert not proxy.requests, "the key was never sent"


def test_a_wrong_key_is_refused_once_and_never_shown(proxy: FaultyProxy, authority: tuple[Path, Path]) -> None:
    proxy.fault = locked("ApiKey another")
    with pytest.raises(TraceStoreError, match=r"401.*ELASTICSEARCH_API_KEY") as caught:
        store(proxy, ELASTICSEARCH_CA_CERTS=str(authority[0]), ELASTICSEARCH_API_KEY=KEY).workloads()
    assert KEY not in str(caught.value)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(600)
def test_the_client_of_the_major_before_keeps_the_promises_of_a_trace_store(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", tmp_path / "client"]
    subprocess.run([*pip, "elasticsearch>=8.15,<9"], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "client"), str(ROOT)))}
    version = "import elasticsearch; print(elasticsearch.__version__[0], elasticsearch.__file__)"
    found = subprocess.run([sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"8 {tmp_path}"), found.stdout
    tests = ["tests/resources/test_elasticsearch_trace_store.py", "tests/resources/test_existing_index.py"]
    chosen = ["-k", "TestElasticsearchTraceStore or storm or killed_writer or form_become or late_document"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *chosen]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
