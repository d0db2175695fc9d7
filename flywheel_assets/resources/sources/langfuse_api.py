"""Langfuse's API through its official SDK: calls that are counted and bounded, and answered with JSON or an error in words.

What belongs here: keys and URL from the environment, the bound on calls a minute, what a status means. What does not: which
windows are read and what becomes of the rows (`langfuse`).

Answers are taken as the server sent them, before the SDK makes models of them: one row that a model refuses would otherwise
keep every other row of its page out for ever, and making models costs 0.75 ms a row.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version as installed_version
from typing import Any

import httpx

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.sources.base import SourceError

DEFAULT_BASE_URL = "https://cloud.langfuse.com"
OBSERVATION_FIELDS = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
SCORE_FIELDS = "details,subject"
SCORES_A_PAGE = 100

# Where the flywheel's own traces go (`telemetry.langfuse`): they are no traffic.
OWN_ENVIRONMENT = "flywheel"

# The newest server that is known to refuse the scores SDK 5 sends (as a list).
LAST_REFUSING_SCORES = (4, 16)

_TIMEOUT_S = 20
# Small answers that a whole tick may have to wait for: they must not use up its time.
_GREETING_TIMEOUT_S = 5
_MINUTE_S = 60.0
# Asked to wait without being told how long: the limits are by the minute.
_DEFAULT_WAIT_S = 60.0
_LONGEST_WAIT_S = 3600.0
_SHOWN_MESSAGE = 200


class AskedToWait(Exception):
    """No call may be made before `until` (epoch seconds); `why` is for a person."""

    def __init__(self, until: float, why: str) -> None:
        super().__init__(why)
        self.until = until
        self.why = why


class _Answered(Exception):
    """A successful answer on its way past the SDK."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.response = response


class BadRequest(SourceError):
    """The server refuses the question itself (400): a page cursor it does not know any more, or a wrong field."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a Langfuse project is and how it is entered."""

    base_url: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Access({self.base_url!r})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Out of LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY; SourceError names what is missing."""
        names = ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")
        if missing := [name for name in names if not environment.get(name)]:
            raise SourceError(f"Langfuse: {' and '.join(missing)} not set. Put the project's API keys into .env.")
        url = environment.get("LANGFUSE_BASE_URL") or environment.get("LANGFUSE_HOST") or DEFAULT_BASE_URL
        return cls(url.rstrip("/"), *(environment[name] for name in names))


class LangfuseCalls:
    """The calls this project needs, at most `per_minute` of them a minute in this process. Never sleeps, never retries."""

    def __init__(self, access: Access, *, per_minute: int, now: Callable[[], float] = time.time) -> None:
        self.base_url = access.base_url
        self._now = now
        self._per_minute = per_minute
        self._made: deque[float] = deque()
        self._http = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True, event_hooks={"response": [_take_answer]})
        self._api = _sdk().LangfuseAPI(
            base_url=access.base_url,
            username=access.public_key,
            password=access.secret_key,
            x_langfuse_public_key=access.public_key,
            httpx_client=self._http,
        )

    def health(self) -> Json:
        """`{"status", "version"}`; needs no key."""
        return self._call(lambda options: self._api.health.health(request_options=options), _GREETING_TIMEOUT_S)

    def projects(self) -> Json:
        """`{"data": [{"id", "name"}]}`: the project the keys belong to."""
        return self._call(lambda options: self._api.projects.get(request_options=options), _GREETING_TIMEOUT_S)

    def observations(self, *, limit: int, expand_metadata: str, **query: Any) -> Json:
        """One page of GENERATION observations, newest first: `{"data", "meta": {"cursor"?}}`."""
        return self._call(
            lambda options: self._api.observations.get_many(
                fields=OBSERVATION_FIELDS,
                type="GENERATION",
                limit=limit,
                expand_metadata=expand_metadata,
                request_options=options,
                **query,
            )
        )

    def scores(self, *, name: str, **query: Any) -> Json:
        """One page of scores with their subjects: `{"data", "meta": {"cursor"?}}`; `name`, `trace_id`: several by commas."""
        return self._call(
            lambda options: self._api.scores.get_many(
                name=name, limit=SCORES_A_PAGE, fields=SCORE_FIELDS, request_options=options, **query
            )
        )

    def _call(self, call: Callable[[Any], object], timeout_s: float | None = None) -> Json:
        self._count()
        timeout_s = timeout_s or _TIMEOUT_S
        try:
            call({"max_retries": 0, "timeout_in_seconds": timeout_s})
        except _Answered as answer:
            return self._content(answer.response)
        except httpx.TimeoutException as error:
            raise SourceError(f"Langfuse at {self.base_url} did not answer within {timeout_s} s.") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise SourceError(
                f"Langfuse at {self.base_url} cannot be reached ({error}). Is LANGFUSE_BASE_URL right?"
            ) from error
        except _sdk_error() as error:
            raise self._failure(error.status_code or 0, error.headers or {}, error.body) from error
        raise AssertionError("the SDK took neither an answer nor an error")

    def _content(self, response: httpx.Response) -> Json:
        try:
            content = response.json()
        except (ValueError, RecursionError) as error:
            raise SourceError(f"Langfuse at {self.base_url} answered something that is no JSON.") from error
        if not isinstance(content, dict):
            raise SourceError(f"Langfuse at {self.base_url} answered a list where an object was expected.")
        return content

    def _failure(self, status: int, headers: Mapping[str, str], body: Any) -> Exception:
        message = str(body.get("message", "") if isinstance(body, dict) else body)[:_SHOWN_MESSAGE]
        if status == 429:
            wait = _retry_after(headers, self._now())
            return AskedToWait(self._now() + wait, f"asked to wait {wait:.0f} s (rate limit), going on then")
        if status in (401, 403):
            return SourceError(f"Langfuse at {self.base_url} refuses the keys ({status}: {message}). Check LANGFUSE_*_KEY.")
        if status == 404:
            return SourceError(
                f"Langfuse at {self.base_url} has no such API ({message}). It must serve API v2 observations."
            )
        if status == 400:
            return BadRequest(f"Langfuse at {self.base_url} refuses the request (400: {message}).")
        return SourceError(f"Langfuse at {self.base_url} answered {status} ({message}).")

    def _count(self) -> None:
        now = self._now()
        while self._made and self._made[0] <= now - _MINUTE_S:
            self._made.popleft()
        if len(self._made) >= self._per_minute:
            wait = self._made[0] + _MINUTE_S - now
            why = f"{len(self._made)} calls within a minute (langfuse.calls_per_minute), going on in {wait:.0f} s"
            raise AskedToWait(now + wait, why)
        self._made.append(now)


def _take_answer(response: httpx.Response) -> None:
    if response.is_success:
        response.read()
        raise _Answered(response)


def _retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds to wait: Retry-After in seconds or as a date, a minute where it says neither."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        wait = float(text) if text.replace(".", "", 1).isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError):
        wait = _DEFAULT_WAIT_S
    return min(max(wait, 1.0), _LONGEST_WAIT_S)


def instant(epoch: float) -> datetime:
    """Epoch seconds as the SDK wants them."""
    return datetime.fromtimestamp(epoch, UTC)


def skew(version: str) -> str:
    """What does not work between the SDK and a server of this version; empty where nothing is known."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) <= LAST_REFUSING_SCORES:
        return (
            f"server {version} refuses the scores that SDK 5 sends (it answers 400, and they are lost): update the server, "
            "or send feedback with SDK 4. Reading works."
        )
    return ""


def sdk_version() -> str:
    """The installed SDK."""
    return installed_version("langfuse")


def _sdk() -> Any:
    try:
        import langfuse.api
    except ImportError as error:
        raise SourceError(f"Langfuse's SDK is missing ({error}). pip install 'flywheel-assets[langfuse]'") from error
    return langfuse.api


def _sdk_error() -> Any:
    from langfuse.api.core.api_error import ApiError

    return ApiError
