from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core.replay import greedy_request
from flywheel_assets.core.rows import Answer, ToolCall, Variant
from flywheel_assets.resources.prediction_cache import CachedAnswer, CacheError, PredictionCache, prediction_key
from flywheel_assets.resources.serving import Endpoint

REPOSITORY = Path(__file__).resolve().parents[2]
ENDPOINT = Endpoint(
    base_url="http://127.0.0.1:1/v1",
    model="small",
    engine_build="xllamacpp 1",
    model_identity="weights",
    template_identity="template",
    adapter_identity="adapter",
    can_load_adapter=True,
    slots=1,
    context_length=1024,
    api_key="sk",
)
BODY: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 9}
WRITER = """
import sys
from pathlib import Path
from flywheel_assets.core.rows import Answer
from flywheel_assets.resources.prediction_cache import CachedAnswer, PredictionCache
with PredictionCache(Path(sys.argv[1])) as cache:
    for number in range(200):
        cache.put(f"{number}", CachedAnswer(Answer(sys.argv[2]), 1.0, 2, 3))
"""


def entry(text: str = "hello") -> CachedAnswer:
    return CachedAnswer(Answer(text, (ToolCall("f", '{"a": 1'),)), 12.5, 10, 3)


def key(variant: Variant = Variant.BASE, *, sample: int = 0, body: dict[str, Any] = BODY, **changes: Any) -> str:
    return prediction_key(body, dataclasses.replace(ENDPOINT, **changes), variant, sample=sample)


def test_an_answer_comes_back_as_it_was_given(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "deep" / "cache.sqlite") as cache:
        cache.put("k", entry())
        assert cache.get_many(["k", "unknown"]) == {"k": entry()}


def test_answers_outlive_the_process_that_got_them(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        cache.put("k", entry())
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        assert cache.get_many(["k"]) == {"k": entry()}


@pytest.mark.parametrize(
    "text", ["", "\x00", "half a pair \ud83d", "\U000ca562", "'; DROP TABLE predictions; --", "x" * 100_000]
)
def test_any_text_a_model_can_write_is_kept(text: str, tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        cache.put("k", entry(text))
        assert cache.get_many(["k"])["k"].answer.content == text


def test_an_answer_kept_before_cached_tokens_were_read_is_still_found(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        cache.put("new", dataclasses.replace(entry(), cached_tokens=7))
        old = {"answer": entry().answer.to_json(), "latency_ms": 12.5, "prompt_tokens": 10, "completion_tokens": 3}
        cache._db.execute("INSERT INTO predictions (key, value) VALUES (?, ?)", ("old", json.dumps(old)))
        found = cache.get_many(["new", "old"])
    # How it ended was not read then either.
    assert (found["new"].cached_tokens, found["old"]) == (7, dataclasses.replace(entry(), knows_end=False))


def test_ten_thousand_keys_are_looked_up_at_once(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        for number in range(0, 10_000, 10):
            cache.put(str(number), entry())
        assert len(cache.get_many(str(number) for number in range(10_000))) == 1000 == len(cache)


def test_the_first_answer_stays_when_two_asked_at_once(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        cache.put("k", entry("first"))
        cache.put("k", entry("second"))
        assert cache.get_many(["k"])["k"].answer.content == "first"


def test_processes_and_threads_may_write_together(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(n)], cwd=REPOSITORY) for n in range(3)]
    with PredictionCache(file) as cache:
        threads = [threading.Thread(target=cache.put, args=(f"t{n}", entry())) for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [writer.wait() for writer in writers] == [0, 0, 0]
        assert len(cache) == 250


def test_a_file_that_is_no_cache_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    file.write_bytes(b"this is not a database, and it is long enough to be looked at" * 10)
    with pytest.raises(CacheError, match="Delete it: it is only a cache"):
        PredictionCache(file)


@pytest.mark.parametrize(
    "changed",
    [
        {"model_identity": "other"},
        {"template_identity": "other"},
        {"engine_build": "xllamacpp 2"},
        {"context_length": 2048},
        {"sample": 1},
        {"again": "marked"},
        {"body": {**BODY, "max_tokens": 10}},
        {"body": {**BODY, "messages": [{"role": "user", "content": "hi!"}]}},
        {"body": {**BODY, "tools": [{"type": "function", "function": {"name": "f"}}]}},
    ],
)
def test_whatever_may_change_an_answer_is_another_question(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "http://127.0.0.1:2/v1"},
        {"api_key": "another"},
        {"slots": 4},
        {"body": {**BODY, "model": "renamed"}},
        {"body": dict(reversed(BODY.items()))},
    ],
)
def test_whatever_cannot_change_an_answer_is_the_same_question(changed: dict[str, Any]) -> None:
    assert key(**changed) == key()


def test_another_adapter_is_another_question_for_the_customized_variant_only() -> None:
    assert key(Variant.CUSTOMIZED, adapter_identity="a") != key(Variant.CUSTOMIZED, adapter_identity="b")
    assert key(Variant.BASE, adapter_identity="a") == key(Variant.BASE, adapter_identity="b")
    assert key(Variant.CUSTOMIZED) != key(Variant.BASE)


def test_a_base_answer_is_the_same_with_and_without_an_adapter_loaded_beside_it() -> None:
    bodies = []
    for endpoint in (ENDPOINT, dataclasses.replace(ENDPOINT, adapter_identity=None)):
        body = greedy_request(BODY, model="small", max_tokens=9, extra=endpoint.extra_body(Variant.BASE))
        bodies.append(prediction_key(body, endpoint, Variant.BASE))
    assert bodies[0] == bodies[1]
