from __future__ import annotations

import socket
from typing import Any

import pytest

from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.serving import Serving, ServingError
from flywheel_assets.settings import Candidate, Engine
from tests.fakes import OpenAIDouble


def candidate(url: str, **changes: Any) -> Candidate:
    return Candidate(**{"id": "remote", "model": url, "engine": Engine.OPENAI, **changes})


def refusal(of: Candidate) -> str:
    with pytest.raises(ServingError) as refused, Serving().deployed(of, owner="test"):
        pass
    return str(refused.value)


def test_the_only_model_of_a_server_needs_no_name() -> None:
    with OpenAIDouble(models=("qwen",)) as double, Serving().deployed(candidate(double.url), owner="test") as endpoint:
        assert endpoint.base_url == double.url and endpoint.model == "qwen"
        assert not endpoint.can_load_adapter and endpoint.slots is None and endpoint.extra_body(Variant.BASE) == {}


def test_a_server_of_several_models_asks_which() -> None:
    with OpenAIDouble(models=("a", "b")) as double:
        assert "serves 2 models. Say which in `model_name`: a, b." in refusal(candidate(double.url))
        with Serving().deployed(candidate(double.url, model_name="b"), owner="test") as endpoint:
            assert endpoint.model == "b"


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    with OpenAIDouble(models=("a", "b")) as double:
        assert "does not serve 'c' (`model_name`). It serves: a, b." in refusal(candidate(double.url, model_name="c"))


def test_two_models_of_one_server_are_two_identities() -> None:
    with OpenAIDouble(models=("a", "b")) as double:
        identities = set()
        for name in ("a", "b"):
            with Serving().deployed(candidate(double.url, model_name=name), owner="test") as endpoint:
                identities.add(endpoint.model_identity)
        assert len(identities) == 2


def test_an_unreachable_server_is_said_to_be_so() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        message = refusal(candidate(url))
    assert message.startswith(f"candidate 'remote': {url}/models cannot be reached")


def test_a_key_comes_from_the_named_variable_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_KEY", "sk-secret")
    with (
        OpenAIDouble(key="sk-secret") as double,
        Serving().deployed(candidate(double.url, api_key_env="REMOTE_KEY"), owner="test") as endpoint,
    ):
        assert endpoint.api_key == "sk-secret"
        assert "sk-secret" not in repr(endpoint)


def test_an_unset_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMOTE_KEY", raising=False)
    with OpenAIDouble() as double:
        assert "the environment variable REMOTE_KEY (its `api_key_env`) is not set" in refusal(
            candidate(double.url, api_key_env="REMOTE_KEY")
        )


def test_a_refused_key_names_the_variable_and_not_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_KEY", "sk-wrong")
    with OpenAIDouble(key="sk-right") as double:
        message = refusal(candidate(double.url, api_key_env="REMOTE_KEY"))
        assert "answered 401" in message and "The key in REMOTE_KEY was not accepted" in message and "sk-" not in message
        assert "Name the variable that holds its key in `api_key_env`." in refusal(candidate(double.url))


def test_a_url_without_the_api_says_where_it_usually_is() -> None:
    with OpenAIDouble(serves_api=False) as double:
        root = double.url.removesuffix("/v1")
        assert (
            f"answered 404: there is no OpenAI-compatible API at this URL. Most servers have it under {root}/v1."
            in refusal(candidate(root))
        )


def test_an_adapter_is_not_pretended_to_be_served_where_it_cannot_be_loaded(tmp_path: Any) -> None:
    with OpenAIDouble() as double:
        remote = candidate(double.url)
        with (
            pytest.raises(ServingError, match="cannot load our adapter"),
            Serving().deployed(remote, adapter_gguf=tmp_path / "a.gguf", owner="test"),
        ):
            pass


def test_an_upgrade_of_the_server_is_another_engine_build() -> None:
    with OpenAIDouble(owned_by="vllm") as double, Serving().deployed(candidate(double.url), owner="test") as endpoint:
        assert endpoint.engine_build == "vllm 1.2.3"


def test_a_server_that_tells_no_version_is_known_by_its_owner() -> None:
    with OpenAIDouble(owned_by="somebody") as double, Serving().deployed(candidate(double.url), owner="test") as endpoint:
        assert endpoint.engine_build == "somebody"
