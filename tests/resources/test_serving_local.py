"""The life of a model server child, with a double of xllamacpp that loads nothing: it is put on the child's import path."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.leases import LeaseTable
from flywheel_assets.resources.serving import Serving, ServingError
from flywheel_assets.settings import Candidate

REPOSITORY = Path(__file__).resolve().parents[2]
DOUBLE = """
import json, os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
__version__ = "0.0.1"
BUILD_INFO = {"build_number": 7}
class _Open:
    pass
class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = _Open(), _Open(), _Open()
def CommonAdapterLoraInfo(path, scale):
    return [path, scale]
class Server:
    def __init__(self, p):
        exec(open(os.environ["LOADING"]).read())
        def shown(value):
            return str(vars(value)) if isinstance(value, _Open) else sorted(value) if isinstance(value, set) else value
        seen = {name: shown(value) for name, value in vars(p).items()}
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(seen).encode()
                self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
                self.wfile.write(body)
            def log_message(self, *a): pass
        s = ThreadingHTTPServer(("127.0.0.1", getattr(p, "port", 0)), Handler)
        threading.Thread(target=s.serve_forever, daemon=True).start()
        self.listening_address = "http://127.0.0.1:%d" % s.server_address[1]
"""


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what happens while the double loads a model: any Python."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "xllamacpp.py").write_text(DOUBLE)
    (tmp_path / "loading.py").write_text("pass")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}{os.pathsep}{REPOSITORY}")
    monkeypatch.setenv("LOADING", str(tmp_path / "loading.py"))
    return lambda code: (tmp_path / "loading.py").write_text(code) and None


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and then nothing")
    return file


def candidate(gguf: Path, **changes: Any) -> Candidate:
    return Candidate(
        **{"id": "small", "model": str(gguf), "chat_template": "chatml-tools", "context_length": 1024, **changes}
    )


def refusal(of: Candidate, **options: Any) -> str:
    with pytest.raises(ServingError) as refused, Serving().deployed(of, owner="test", **options):
        pass
    return str(refused.value)


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "llama_server" in " ".join(p.cmdline())]


def gone(pid: int, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def eventually(told: Callable[[], str | None], within_s: float = 20.0) -> str | None:
    deadline = time.monotonic() + within_s
    while (answer := told()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


def test_a_server_is_up_inside_the_block_and_gone_behind_it(loading: Any, gguf: Path) -> None:
    with Serving().deployed(candidate(gguf), owner="test") as endpoint:
        assert endpoint.base_url.endswith("/v1") and endpoint.engine_build == "xllamacpp 0.0.1/llama.cpp b7"
        assert endpoint.can_load_adapter and endpoint.fault() is None
        (child,) = children()
    assert not child.is_running()


def test_a_failing_block_leaves_no_server_behind(loading: Any, gguf: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Serving().deployed(candidate(gguf), owner="test"):
        (child,) = children()
        raise KeyboardInterrupt
    assert not child.is_running()


def test_every_slot_has_the_whole_context_of_the_candidate(loading: Any, gguf: Path) -> None:
    with Serving().deployed(candidate(gguf), owner="test", parallel=3, threads=5) as endpoint:
        seen = httpx.get(endpoint.base_url).json()
    assert seen["n_ctx"] == 3 * 1024 and seen["n_parallel"] == 3 and endpoint.slots == 3
    assert seen["cpuparams"] == seen["cpuparams_batch"] == "{'n_threads': 5}"


def test_the_server_is_given_our_template_and_the_adapter(loading: Any, gguf: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"GGUF adapter")
    with Serving().deployed(candidate(gguf), adapter_gguf=adapter, owner="test") as endpoint:
        seen = httpx.get(endpoint.base_url).json()
    assert "<tool_call>" in seen["chat_template"] and seen["use_jinja"] is True
    assert seen["lora_adapters"] == [[str(adapter), 1.0]]
    assert endpoint.adapter_identity not in (None, endpoint.model_identity)
    assert endpoint.extra_body(Variant.PREFIXED) == {"lora": [{"id": 0, "scale": 0.0}]}


def test_whole_prompts_are_not_cached_across_adapter_scales(loading: Any, gguf: Path) -> None:
    with Serving().deployed(candidate(gguf), owner="test") as endpoint:
        assert httpx.get(endpoint.base_url).json()["cache_ram_mib"] == 0


def test_a_server_answers_only_who_holds_its_key_unless_it_is_public(loading: Any, gguf: Path) -> None:
    with Serving().deployed(candidate(gguf), owner="test") as endpoint:
        assert endpoint.api_key and httpx.get(endpoint.base_url).json()["api_keys"] == [endpoint.api_key]
        (child,) = children()
        assert endpoint.api_key not in " ".join(child.cmdline())
    with Serving().deployed(candidate(gguf), owner="test", private=False) as endpoint:
        assert endpoint.api_key is None and "api_keys" not in httpx.get(endpoint.base_url).json()


def test_another_template_or_model_is_another_identity(loading: Any, gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF and something else")
    serving = Serving(root=tmp_path)
    seen = set()
    for which in (candidate(gguf), candidate(gguf, chat_template="own.jinja"), candidate(other)):
        with serving.deployed(which, owner="test") as endpoint:
            seen.add((endpoint.model_identity, endpoint.template_identity))
    assert len(seen) == 3


def test_kill_dash_nine_of_the_parent_takes_the_server_along(loading: Any, gguf: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(gguf)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert gone(child)


def test_kill_dash_nine_while_the_model_loads_takes_the_server_along(loading: Any, gguf: Path, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    loading(f"open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(gguf)], env=dict(os.environ))
    deadline = time.monotonic() + 20
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert gone(int(told.read_text()))


_PARENT = textwrap.dedent(
    """
    import sys, time, psutil
    from flywheel_assets.resources.serving import Serving
    from flywheel_assets.settings import Candidate
    candidate = Candidate(id="small", model=sys.argv[1])
    with Serving().deployed(candidate, owner="test"):
        print(psutil.Process().children()[0].pid, flush=True)
        time.sleep(60)
    """
)


def test_a_server_that_dies_says_how_and_what_it_logged(loading: Any, gguf: Path) -> None:
    loading("print('CUDA error: too hot', flush=True); threading.Timer(0.6, lambda: os.kill(os.getpid(), 9)).start()")
    with Serving().deployed(candidate(gguf), owner="test") as endpoint:
        # A process with threads counts as gone before its parent can read how it ended.
        fault = eventually(endpoint.fault)
    assert fault is not None and "was killed (signal 9" in fault and "CUDA error: too hot" in fault


def test_a_chatty_server_neither_blocks_nor_fills_the_memory(loading: Any, gguf: Path) -> None:
    loading("[print('x' * 10_000) for _ in range(2_000)]; print('the end', flush=True); raise RuntimeError('no')")
    message = refusal(candidate(gguf))
    assert "the end" in message and len(message) < 8_000


def test_a_missing_model_is_named(gguf: Path, tmp_path: Path) -> None:
    assert f"the model {tmp_path / 'none.gguf'} does not exist" in refusal(candidate(tmp_path / "none.gguf"))


def test_a_missing_adapter_is_named(gguf: Path, tmp_path: Path) -> None:
    message = refusal(candidate(gguf), adapter_gguf=tmp_path / "none.gguf")
    assert f"the adapter {tmp_path / 'none.gguf'} does not exist" in message


def test_a_file_that_is_no_gguf_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    assert "is not a GGUF file (it starts with b'PK" in refusal(candidate(tmp_path / "model.gguf"))


def test_a_folder_is_served_when_it_holds_one_gguf_file(loading: Any, gguf: Path, tmp_path: Path) -> None:
    with Serving().deployed(candidate(tmp_path), owner="test") as endpoint:
        assert httpx.get(endpoint.base_url).json()["model"] == str({"path": str(gguf)})
    gguf.unlink()
    assert "holds no GGUF file" in refusal(candidate(tmp_path))


def test_a_missing_engine_names_the_extra_that_brings_it(loading: Any, gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "modules" / "xllamacpp.py").write_text("raise ImportError('no such module')")
    assert "Install the extra 'local'" in refusal(candidate(gguf))


def test_too_little_memory_says_what_to_lower(loading: Any, gguf: Path) -> None:
    loading("print('E ggml: failed to allocate buffer', flush=True); raise RuntimeError('Failed to init server')")
    message = refusal(candidate(gguf), parallel=2)
    assert "not enough memory" in message and "2 x 1024 tokens" in message and "Lower `context_length`" in message


def test_a_child_that_dies_without_a_word_is_explained(loading: Any, gguf: Path) -> None:
    loading("os.kill(os.getpid(), 11)")
    assert "was ended by signal 11. It was loading" in refusal(candidate(gguf))


def test_a_damaged_model_is_explained_in_the_words_of_the_engine(gguf: Path) -> None:
    pytest.importorskip("xllamacpp")
    message = refusal(candidate(gguf))
    assert "llama.cpp refused" in message and "The end of its log:" in message and str(gguf) in message


def test_a_candidate_that_uses_gpus_holds_a_lease_while_it_is_up(loading: Any, gguf: Path, tmp_path: Path) -> None:
    leases = LeaseTable(tmp_path / "leases.sqlite")
    serving = Serving(leases=leases, gpu_budget=2)
    with serving.deployed(candidate(gguf, gpus=2), owner="run-1"), serving.deployed(candidate(gguf), owner="run-2"):
        assert [(lease.owner, lease.weight) for lease in leases.leases()] == [("run-1", 2)]
    assert leases.leases() == []
