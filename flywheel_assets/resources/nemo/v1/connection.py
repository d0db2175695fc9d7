"""The connection to NeMo v1: its clients, its keys, and which failure is worth repeating.

Tries are counted here and not in the SDK, which would also repeat 408 and 409, and would create a job twice: a request
whose answer was lost may have been obeyed, so whoever creates something says how to find it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import httpx
import nemo_microservices
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars
from nemo_microservices import NeMoMicroservices

from flywheel_assets.resources.nemo.errors import NemoUnauthorized, NemoUnreachable, refusal
from flywheel_assets.resources.nemo.polling import backoff
from flywheel_assets.settings import NemoSettings

T = TypeVar("T")

# The Data Store of a default installation asks for a token and does not look at it.
_ANY_TOKEN = "token"
# Ending something must not hold up a run that is being cancelled: what cannot be reached is left to the janitor.
SHORT_S = 5.0
_TOO_MANY = 429
_SERVER_FAULT = 500


class Connection:
    """Clients of one cluster, made when they are first used: a forked process makes its own."""

    def __init__(self, settings: NemoSettings, *, strict: bool = False) -> None:
        """`strict` refuses answers that do not fit the SDK's types, which is for tests: a cluster may be newer."""
        self.settings = settings
        self._strict = strict

    @cached_property
    def api(self) -> NeMoMicroservices:
        """The official client."""
        return NeMoMicroservices(
            base_url=self.settings.base_url,
            inference_base_url=self.settings.nim_url,
            max_retries=0,
            timeout=self.settings.request_timeout_s,
            default_headers=self.headers,
            _strict_response_validation=self._strict,
        )

    @cached_property
    def hub(self) -> HfApi:
        """The client of the Data Store's Hugging Face API."""
        # It would tell at every upload that open files do not go the Xet way, which is why they are open, and draw bars.
        logging.getLogger("huggingface_hub._commit_api").setLevel(logging.ERROR)
        disable_progress_bars()
        return HfApi(
            endpoint=f"{self.settings.datastore_url}/v1/hf",
            token=self._secret(self.settings.datastore_token_env) or _ANY_TOKEN,
        )

    @cached_property
    def http(self) -> httpx.Client:
        """For what the SDK does not speak: the Data Store's namespaces and the NIM proxy."""
        return httpx.Client(timeout=self.settings.request_timeout_s, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        key = self.key
        return {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def key(self) -> str | None:
        """The bearer token, where one is configured. Raises NemoUnauthorized when its variable is not set."""
        return self._secret(self.settings.api_key_env)

    def _secret(self, variable: str | None) -> str | None:
        if variable is None:
            return None
        value = os.environ.get(variable)
        if not value:
            raise NemoUnauthorized(f"The environment variable {variable} is not set. Set it, or put it into .env.")
        return value

    def do(
        self, what: str, call: Callable[[], T], *, find: Callable[[], T | None] | None = None, for_s: float | None = None
    ) -> T:
        """What `call` gives, after as many tries as it takes within `for_s` seconds (default: `nemo.retry_s`).

        `what` begins every error message and holds a place. `find` looks for what a lost request may have made. Raises a
        NemoRefused at once for 4xx, and NemoUnreachable when the time is over.
        """
        deadline = time.monotonic() + (self.settings.retry_s if for_s is None else for_s)
        tries = 0
        while True:
            try:
                return call()
            except Exception as error:
                pause = backoff(tries, self._worth_repeating(what, error))
                if time.monotonic() + pause > deadline:
                    raise NemoUnreachable(
                        f"{what}: {self._hidden(str(error))} ({tries + 1} tries). Is the cluster up? The next run goes on "
                        "from here; `nemo.retry_s` says how long to wait."
                    ) from error
            time.sleep(pause)
            tries += 1
            if find is not None and (found := self.do(what, find, for_s=max(0.0, deadline - time.monotonic()))) is not None:
                return found

    def _worth_repeating(self, what: str, error: Exception) -> float | None:
        """Seconds the server asked to wait, None where it did not say; raises what is not worth repeating."""
        if isinstance(error, nemo_microservices.APIConnectionError | httpx.TransportError):
            return None
        response = _response_of(error)
        if response is None:
            raise error
        if response.status_code == _TOO_MANY or response.status_code >= _SERVER_FAULT:
            asked = response.headers.get("retry-after", "")
            return float(asked) if asked.replace(".", "", 1).isdigit() else None
        raise refusal(response.status_code, what, self._hidden(_said(response))) from error

    def _hidden(self, text: str) -> str:
        """A server may quote the key it refuses."""
        for variable in (self.settings.api_key_env, self.settings.datastore_token_env):
            if variable and (secret := os.environ.get(variable)):
                text = text.replace(secret, "***")
        return text

    def get(self, url: str) -> Any:
        """The JSON behind a URL outside the SDK."""
        return self.http.get(url).raise_for_status().json()


def _response_of(error: Exception) -> Any:
    if isinstance(error, nemo_microservices.APIStatusError | HfHubHTTPError | httpx.HTTPStatusError):
        return error.response
    return None


def _said(response: Any) -> str:
    try:
        content = response.json()
    except (ValueError, httpx.ResponseNotRead):
        return str(response.headers.get("x-error-message") or response.reason_phrase)
    detail = content.get("detail", content.get("message", content)) if isinstance(content, dict) else content
    return str(detail)
