"""The openai engine: an OpenAI-compatible server that somebody else runs. Asked once, politely, before it is relied on.

What belongs here: finding the API under a URL, the model's name, and who answers. What does not: asking for completions
(`resources.asking`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from flywheel_assets.resources.bounded_http import UntrustworthyAnswer, bounded_get
from flywheel_assets.resources.credentials import unsendable, without_credentials
from flywheel_assets.resources.serving.endpoint import GATEWAY_TEMPLATE, Endpoint, ServingError
from flywheel_assets.settings import Candidate

PREFLIGHT_TIMEOUT_S = 15.0
_SHOWN_MODELS = 10


class NotReady(ServingError):
    """An endpoint does not answer yet, or not now: a moment later it may."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model behind somebody's URL. `called` names it in messages, such as "candidate 'small'"."""

    called: str
    url: str
    model_name: str | None = None
    api_key_env: str | None = None

    @property
    def shown_url(self) -> str:
        """The URL for people: without a user and password that may stand in it."""
        return without_credentials(self.url)

    @classmethod
    def of(cls, candidate: Candidate) -> RemoteModel:
        """The model of a candidate with engine `openai`."""
        return cls(f"candidate '{candidate.id}'", candidate.model, candidate.model_name, candidate.api_key_env)


def remote_endpoint(model: RemoteModel) -> Endpoint:
    """The endpoint behind a URL, after `GET /models` has answered.

    The key comes from the environment variable the model names. Raises ServingError when the variable is unset, the server
    refuses, or it does not serve the model; NotReady when it cannot be reached or is not able to answer.
    """
    key = _key(model)
    base_url = model.url.rstrip("/")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=PREFLIGHT_TIMEOUT_S, headers=headers) as client:
        models = _models(client, model, base_url)
        entry = _model_entry(model, models)
        build = _engine_build(client, base_url, entry)
    return Endpoint(
        base_url=base_url,
        model=entry["id"],
        engine_build=build,
        model_identity=f"{without_credentials(base_url)}#{entry['id']}",
        template_identity=GATEWAY_TEMPLATE,
        api_key=key,
    )


def _key(model: RemoteModel) -> str | None:
    if model.api_key_env is None:
        return None
    key = os.environ.get(model.api_key_env)
    if not key:
        raise ServingError(
            f"{model.called}: the environment variable {model.api_key_env} (its `api_key_env`) is not set. "
            "Set it, or put it into .env beside flywheel.yaml."
        )
    if fault := unsendable(model.api_key_env, key):
        raise ServingError(f"{model.called}: {fault}")
    return key


def _models(client: httpx.Client, model: RemoteModel, base_url: str) -> list[dict[str, Any]]:
    where = f"{model.called}: {model.shown_url.rstrip('/')}/models"
    try:
        response = bounded_get(client, f"{base_url}/models")
    except UntrustworthyAnswer as error:
        raise ServingError(f"{where} answered something that is not read: {error}.") from None
    except httpx.TimeoutException:
        raise NotReady(f"{where} did not answer within {PREFLIGHT_TIMEOUT_S:.0f} s. Is the server up and loaded?") from None
    except httpx.InvalidURL as error:
        raise ServingError(f"{where} is no address ({error}). Mend it in flywheel.yaml.") from None
    except httpx.TransportError as error:
        raise NotReady(
            f"{where} cannot be reached ({without_credentials(str(error))}). Is the server up, and the address right?"
        ) from None
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        name = model.api_key_env
        cure = f"The key in {name} was not accepted." if name else "Name the variable that holds its key in `api_key_env`."
        raise ServingError(f"{where} answered {response.status_code}: it wants a valid key. {cure}")
    if response.status_code == httpx.codes.NOT_FOUND:
        hint = "" if base_url.endswith("/v1") else f" Most servers have it under {base_url}/v1."
        raise ServingError(f"{where} answered 404: there is no OpenAI-compatible API at this URL.{hint}")
    if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise NotReady(f"{where} answered {response.status_code} {response.reason_phrase}. See the server's own log.")
    if response.is_redirect:
        target = without_credentials(response.headers.get("location", "elsewhere")).removesuffix("/models")
        raise ServingError(
            f"{where} answered {response.status_code}: it sends us to {target}, and conversations are not sent on. If that "
            "is where they may go, name it in flywheel.yaml."
        )
    if response.is_error:
        raise ServingError(f"{where} answered {response.status_code} {response.reason_phrase}. See the server's own log.")
    try:
        entries = response.json()["data"]
        return [entry for entry in entries if isinstance(entry["id"], str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ServingError(
            f"{where} answered something that is no list of models. `model` must be the base URL of an OpenAI-compatible "
            "API; it usually ends with /v1."
        ) from None


def _model_entry(model: RemoteModel, models: list[dict[str, Any]]) -> dict[str, Any]:
    names = [entry["id"] for entry in models]
    shown = ", ".join(names[:_SHOWN_MODELS]) + (", ..." if len(names) > _SHOWN_MODELS else "")
    if model.model_name is None:
        if len(models) == 1:
            return models[0]
        raise ServingError(
            f"{model.called}: {model.shown_url} serves {len(models)} models. Say which in `model_name`: {shown}."
        )
    for entry in models:
        if entry["id"] == model.model_name:
            return entry
    raise ServingError(
        f"{model.called}: {model.shown_url} does not serve '{model.model_name}' (`model_name`). "
        f"It serves: {shown or 'nothing'}."
    )


def _engine_build(client: httpx.Client, base_url: str, entry: dict[str, Any]) -> str:
    """The engine and its version where the server says so: an upgrade there must not be answered from the cache here."""
    owner = str(entry.get("owned_by") or "")
    root = base_url.removesuffix("/v1")
    ask = {"vllm": ("version", "version"), "llamacpp": ("props", "build_info")}.get(owner)
    if ask is not None:
        path, key = ask
        try:
            answer = bounded_get(client, f"{root}/{path}")
            if answer.is_success and isinstance(told := answer.json(), dict) and told.get(key):
                return f"{owner} {told[key]}"
        except (httpx.TransportError, ValueError, RecursionError):
            return owner  # Not every proxy lets these through, and the API itself has just answered.
    return owner or str(urlsplit(base_url).hostname)
