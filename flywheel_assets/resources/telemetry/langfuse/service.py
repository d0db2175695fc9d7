"""Service: requests to one Langfuse project, each once, with a time limit, and an error in words where it was not taken.

What belongs here: URLs, keys, time limits, what a status means, and the form in which this server takes scores. What does
not: what is told.
"""

from __future__ import annotations

import gzip
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import httpx

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.sources.langfuse_api import LAST_REFUSING_SCORES, Access, sdk_version
from flywheel_assets.resources.telemetry.langfuse.memory import Memory
from flywheel_assets.resources.telemetry.langfuse.observations import Observation, without_credentials
from flywheel_assets.resources.telemetry.langfuse.observations import requests_of as span_requests
from flywheel_assets.resources.telemetry.langfuse.scores import Score, as_events
from flywheel_assets.resources.telemetry.langfuse.scores import requests_of as score_requests

_T = TypeVar("_T")

# A phase that has just begun and ended waits for no more than this, once, before the server is left alone.
CALL_S = 2.0
# Long enough to ask once a turn, short enough to notice an updated server.
_PROJECT_KEPT_S = 600.0
_SHOWN_MESSAGE = 120
# Too many requests, and a server in trouble. One that does not know a path (501) may know the next.
_AWAY = (429, 500, 502, 503, 504)
TIME_WAS_UP = "the time was up"

log = logging.getLogger(__name__)


class NotTold(Exception):
    """Langfuse was not told something; the message says why."""


class Away(NotTold):
    """It does not answer, or wants no more for now: nothing else needs to be tried."""


@dataclass(frozen=True, slots=True)
class Project:
    """The project that the keys belong to, on a server of `version`; `lists` is whether that takes lists of scores."""

    id: str
    name: str
    version: str
    lists: bool = True


class LangfuseService:
    """One project. `until`, in every method, is when there is no time left, in monotonic seconds; all raise NotTold."""

    def __init__(self, access: Access, memory: Memory) -> None:
        # Seconds of imports, therefore here: this is made in a background thread, and only where Langfuse is told.
        from langfuse.api import LangfuseAPI

        self.base_url, self.public_key = access.base_url, access.public_key
        self._memory = memory
        self._http = httpx.Client(
            auth=(access.public_key, access.secret_key),
            headers={
                "x-langfuse-sdk-name": "python",
                "x-langfuse-sdk-version": sdk_version(),
                "x-langfuse-public-key": access.public_key,
                "x-langfuse-ingestion-version": "4",
            },
            timeout=CALL_S,
            # Conversations go where the settings say, and to nobody whom that server names.
            follow_redirects=False,
        )
        self._api = LangfuseAPI(
            base_url=access.base_url,
            username=access.public_key,
            password=access.secret_key,
            x_langfuse_public_key=access.public_key,
            httpx_client=self._http,
        )

    def project(self, until: float) -> Project:
        """The project, remembered for some minutes: every run is a process of its own, and need not ask again."""
        kept = self._memory.project(_PROJECT_KEPT_S)
        if kept is not None:
            return Project(**kept)
        project = self.ask_project(until)
        if not project.lists:
            log.warning("Langfuse: %s", skew(project.version))
        return project

    def ask_project(self, until: float) -> Project:
        """The project as it is now."""
        found = self._call(lambda options: self._api.projects.get(request_options=options), until).data
        if not found:
            raise NotTold(f"the keys belong to no project at {self.base_url}")
        version = self._call(lambda options: self._api.health.health(request_options=options), until).version
        project = Project(found[0].id, found[0].name, version, lists=not refuses_lists(version))
        self._memory.keep_project(asdict(project))
        return project

    def send(self, observations: Iterable[Observation], until: float) -> int:
        """Tell observations; how many were taken before the time was up (all, unless it was). Raises as the class says."""
        taken = 0
        for count, body in span_requests(observations, self.public_key):
            if taken and time.monotonic() >= until:
                break
            self._post(
                "/api/public/otel/v1/traces",
                until,
                content=gzip.compress(body, compresslevel=6),
                headers={"content-type": "application/x-protobuf", "content-encoding": "gzip"},
            )
            taken += count
        return taken

    def score(self, scores: Sequence[Score], until: float) -> int:
        """Tell scores, in the form that the server takes; how many were taken before the time was up."""
        taken = 0
        for batch in score_requests(scores):
            if taken and time.monotonic() >= until:
                break
            self._score(batch, until)
            taken += len(batch)
        return taken

    def dataset(self, name: str, description: str, metadata: Json, until: float) -> str:
        """Make the dataset or bring its description up to date; its id."""
        return str(
            self._call(
                lambda options: self._api.datasets.create(
                    name=name, description=description, metadata=metadata, request_options=options
                ),
                until,
            ).id
        )

    def put_item(self, dataset: str, item: Json, until: float) -> None:
        """Make a dataset item, or replace the one with its id. `item` holds id, input, expected_output and metadata."""
        self._call(
            lambda options: self._api.dataset_items.create(dataset_name=dataset, request_options=options, **item), until
        )

    def delete_item(self, item: str, until: float) -> None:
        """Take an item out; one that is not there is out already."""
        try:
            self._call(lambda options: self._api.dataset_items.delete(item, request_options=options), until)
        except _Missing:
            return

    def trace_url(self, project: Project, trace_id: str) -> str:
        """Where a person sees a trace."""
        return f"{without_credentials(self.base_url)}/project/{project.id}/traces/{trace_id}"

    def experiment_url(self, project: Project, experiment: str) -> str:
        """Where a person sees an experiment row by row."""
        return f"{without_credentials(self.base_url)}/project/{project.id}/experiments/results?baseline={experiment}"

    def _score(self, batch: list[Json], until: float) -> None:
        project = self.project(until)
        if project.lists:
            try:
                answer = self._call(lambda options: self._api.scores.create(request=batch, request_options=options), until)
            except _Malformed as error:
                # A server that refuses lists and is newer than any we know of.
                if "received array" not in error.body:
                    raise
                log.warning("Langfuse: %s", skew(project.version))
                self._memory.keep_project(asdict(replace(project, lists=False)))
            else:
                return _whole(batch, getattr(answer, "rejected", 0))
        _whole(batch, _refused_events(self._post("/api/public/ingestion", until, json=as_events(batch, sdk_version()))))

    def _post(self, path: str, until: float, **content: Any) -> httpx.Response:
        return self._call(lambda options: self._plain(path, options["timeout_in_seconds"], content), until)

    def _plain(self, path: str, timeout_s: float, content: Any) -> httpx.Response:
        response = self._http.post(self.base_url + path, timeout=timeout_s, **content)
        if not response.is_success:
            raise self._failure(response.status_code, response.text)
        return response

    def _call(self, call: Callable[[Any], _T], until: float) -> _T:
        from langfuse.api.core.api_error import ApiError

        left = until - time.monotonic()
        if left <= 0:
            raise Away(TIME_WAS_UP)
        limit = min(CALL_S, left)
        try:
            return call({"max_retries": 0, "timeout_in_seconds": limit})
        except httpx.TimeoutException as error:
            raise Away(f"{self.base_url} did not answer within {limit:.1f} s") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise Away(f"{self.base_url} cannot be reached ({error})") from error
        except ApiError as error:
            raise self._failure(error.status_code or 0, str(error.body)) from error
        except ValueError as error:  # The SDK makes models of answers, and is strict about them.
            raise NotTold(f"{self.base_url} answered something unexpected ({type(error).__name__})") from error

    def _failure(self, status: int, body: str) -> NotTold:
        where = f"{self.base_url} answered {status}"
        if status in (401, 403):
            return Away(f"{where}: it refuses the keys")
        if status in _AWAY:
            return Away(where)
        if status == 404:
            return _Missing(where)
        error = _Malformed(f"{where} ({' '.join(body.split())[:_SHOWN_MESSAGE]})")
        error.body = body
        return error


class _Missing(NotTold):
    """404."""


class _Malformed(NotTold):
    """The server does not like the request's form."""

    body = ""


def refuses_lists(version: str) -> bool:
    """Whether a server of this version is known to refuse scores as SDK 5 posts them."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return bool(numbers and (int(numbers[1]), int(numbers[2])) <= LAST_REFUSING_SCORES)


def skew(version: str) -> str:
    """What to say of a server that refuses SDK 5's scores."""
    return (
        f"server {version} refuses scores as SDK {sdk_version()} posts them; the flywheel's go out as SDK 4 posted them. "
        "Update the server: that way will be gone."
    )


def _whole(batch: Sequence[Json], refused: int) -> None:
    if refused:
        raise NotTold(f"the server refused {refused} of {len(batch)}")


def _refused_events(response: httpx.Response) -> int:
    try:
        answer = response.json()
    except ValueError:
        return 0
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return len(errors) if isinstance(errors, list) else 0
