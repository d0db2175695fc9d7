"""A hub over HTTP, through the official client: any endpoint that speaks the Hugging Face API.

What belongs here: what is sent and what is not, what is worth trying again, and what an answer means for a person. What does
not: which files go (`payload`).

Large files go one at a time and by Git LFS, never by Xet: LFS is what every such endpoint speaks, and a file that arrived is
there however the rest ends. So trying again and going on after a crash are the same: look what is there, send the rest.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.tqdm import disable_progress_bars

from flywheel_assets.core.payload import PUBLISHED
from flywheel_assets.resources.credentials import unsendable
from flywheel_assets.resources.hub.payload import Payload
from flywheel_assets.resources.hub.target import (
    HubForbidden,
    HubRefused,
    HubUnauthorized,
    HubUnreachable,
    Placed,
    differing,
    tags_for,
)

TOKEN = "HF_TOKEN"
MAIN = "main"
# Of one read or write, not of a whole upload. The client's own default is to wait for ever.
_TIMEOUT_S = 60.0
# The client tries each upload six times by itself; this is for what it gives up on, and for what it does not repeat.
_PAUSES_S = (2.0, 8.0)
_LONGEST_PAUSE_S = 120.0
_CONFLICTS = (409, 412)
_BUSY = (408, 429)
_SERVER_FAULT = 500
_SHOWN_CHARS = 300
# Signed addresses of uploads are keys, too.
_QUERY = re.compile(r"\?[^\s\"'<>]+")
# They would tell signed addresses, and at every upload that open files do not go by Xet, which is why they are open.
_TALKATIVE = ("httpx", "huggingface_hub.utils._http", "huggingface_hub._commit_api", "huggingface_hub.hf_api")


class HubEndpoint:
    """Model repositories of one hub. `token` is None where none is set: the hub then says whether it needs one."""

    def __init__(self, endpoint: str | None, token: str | None, *, private: bool) -> None:
        self._token, self._private = token, private
        # `False`: never the key that somebody who logged in left on this machine.
        self._api = HfApi(endpoint=endpoint, token=token or False)
        disable_progress_bars()
        set_client_factory(_patient_client)

    @classmethod
    def from_environment(cls, *, private: bool, environment: Mapping[str, str] = os.environ) -> HubEndpoint:
        """The hub at HF_ENDPOINT (default: the client's own), asked with HF_TOKEN. Raises HubUnauthorized for a key that
        cannot be sent, or stands in the address."""
        token = environment.get(TOKEN) or None
        if (fault := unsendable(TOKEN, token)) is not None:
            raise HubUnauthorized(fault)
        endpoint = (environment.get("HF_ENDPOINT") or "").rstrip("/")
        if "@" in urlsplit(endpoint).netloc:
            raise HubUnauthorized(f"HF_ENDPOINT holds a user or password. Take it out; the key is {TOKEN}.")
        return cls(endpoint or None, token, private=private)

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._api.endpoint)

    def who(self) -> str:
        """The name the key belongs to. Raises HubError; asked once, without patience."""
        if self._token is None:
            raise HubUnauthorized(f"{self.address}: {TOKEN} is not set. Set it, or put it into .env.")
        try:
            return str(self._api.whoami()["name"])
        except Exception as error:  # noqa: BLE001 - raised again, in words for a person
            raise self._told(error, "asking whose key it is") or self._unreachable(error, 1) from None

    def publish(self, repository: str, tag: str, payload: Payload, message: str) -> Placed:
        """As `Target.publish` says."""
        for pause in (*_PAUSES_S, None):
            try:
                with _discreet():
                    return self._publish(repository, tag, payload, message)
            except Exception as error:  # noqa: BLE001 - raised again, in words for a person
                # `from None`: Dagster keeps what an error came from, and the client's own words hold signed addresses and
                # whatever the server quoted.
                if (told := self._told(error, repository)) is not None:
                    raise told from None
                if pause is None:
                    raise self._unreachable(error, len(_PAUSES_S) + 1) from None
                pause = max(pause, _asked_to_wait(error))
            time.sleep(pause)
        raise AssertionError("the last try raises")

    def _publish(self, repository: str, tag: str, payload: Payload, message: str) -> Placed:
        head = self._head(repository)
        # As of that commit: a push in between must not be taken for what was looked at.
        there = self._listed(repository, head)
        changed = differing(there, payload)
        gone = sorted(PUBLISHED & there.keys() - payload.files.keys())
        if changed or gone:
            head = self._commit(repository, payload, changed, gone, head, message)
        name, revision = self._pinned(repository, tag, payload, head)
        url = f"{self.address}/{repository}/tree/{name}"
        return Placed(repository, revision, name, url, tuple(changed), self._listed(repository, revision))

    def _head(self, repository: str) -> str:
        """The latest commit of a repository, which is made where it is missing."""
        try:
            info = self._api.repo_info(repository)
        except HfHubHTTPError as error:
            # Not the client's word for it: that says "not found" for a refused key as well.
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            # The client takes the address apart that it is given back, and refuses forms it does not know after all is done.
            with suppress(ValueError):
                self._api.create_repo(repository, private=self._private, exist_ok=True)
            info = self._api.repo_info(repository)
        if self._private and not info.private:
            known = "is public" if info.private is False else "is not said to be private"
            raise HubRefused(
                f"{repository} {known}, and `hub.private` is true: nothing was sent. Make it private on the hub, name "
                "another one in `hub.name`, or set `hub.private: false`."
            )
        if info.sha is None:
            raise HubRefused(f"{repository} has no commit yet, to put another one on top of. Make a first one on the hub.")
        return info.sha

    def _listed(self, repository: str, revision: str) -> dict[str, str]:
        """The hash of every file under a revision: of its content for large ones, Git's own for the others."""
        entries = self._api.list_repo_tree(repository, recursive=True, revision=revision)
        files = (entry for entry in entries if isinstance(entry, RepoFile))
        return {file.path: file.blob_id if file.lfs is None else file.lfs.sha256 for file in files}

    def _commit(
        self, repository: str, payload: Payload, changed: list[str], gone: list[str], head: str, message: str
    ) -> str:
        """Send what changed, take away what an earlier publication left, and return the commit."""
        with ExitStack() as files:
            # As open files: paths of LFS size would go the Xet way.
            added = [CommitOperationAdd(name, files.enter_context(payload.files[name].path.open("rb"))) for name in changed]
            deleted = [CommitOperationDelete(name) for name in gone]
            try:
                # On top of what was looked at: whoever pushes meanwhile is not overwritten, and the next try looks again.
                done = self._api.create_commit(
                    repository, [*added, *deleted], commit_message=message, parent_commit=head, num_threads=1
                )
            except (HfHubHTTPError, HFValidationError):
                raise
            except ValueError:
                # As with a new repository's address.
                if differing(self._listed(repository, MAIN), payload):
                    raise
                return str(self._api.repo_info(repository).sha)
        return done.oid

    def _pinned(self, repository: str, tag: str, payload: Payload, head: str) -> tuple[str, str]:
        """The tag that stands for exactly this payload, and its commit; made where it is missing, never moved."""
        tags = {found.name: found.target_commit for found in self._api.list_repo_refs(repository).tags}
        for name in tags_for(tag, payload):
            if name not in tags:
                self._api.create_tag(repository, tag=name, revision=head)
                return name, head
            there = self._listed(repository, tags[name])
            if PUBLISHED & there.keys() == payload.files.keys() and not differing(there, payload):
                return name, tags[name]
        raise HubRefused(f"{repository}: the tag {name} stands for other files. Look at it on the hub, and delete it.")

    def _told(self, error: Exception, what: str) -> HubRefused | None:
        """The refusal behind an error, for a person; None for what may be another time."""
        if isinstance(error, HubRefused):
            return error
        if isinstance(error, OfflineModeIsEnabled):
            return HubRefused(f"{self.address}: HF_HUB_OFFLINE forbids to reach it. Unset it for this run.")
        # The client wraps what goes wrong with one file.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        if isinstance(cause, HfHubHTTPError):
            return self._refusal(cause, what)
        # Half an answer, or a gateway's page where JSON was to come.
        if isinstance(cause, httpx.TransportError | json.JSONDecodeError):
            return None
        return HubRefused(f"{self.address}, {what}: {self._hidden(str(cause))} ({type(cause).__name__}).")

    def _refusal(self, error: HfHubHTTPError, what: str) -> HubRefused | None:
        status = error.response.status_code
        if status in (*_CONFLICTS, *_BUSY) or status >= _SERVER_FAULT:
            return None
        said = self._hidden(str(error.response.headers.get("X-Error-Message") or error.response.reason_phrase))
        answered = f"{self.address}, {what}: the hub answered {status} ({said})."
        if status == httpx.codes.UNAUTHORIZED:
            state = "is not set" if self._token is None else "is not accepted"
            return HubUnauthorized(f"{answered} {TOKEN} {state}. Set a valid one, or put it into .env.")
        if status == httpx.codes.FORBIDDEN:
            return HubForbidden(
                f"{answered} {TOKEN} may not write there. Give it that right, or name another `hub.namespace`."
            )
        return HubRefused(f"{answered} Look at `hub` in flywheel.yaml, and at the repository.")

    def _unreachable(self, error: Exception, tries: int) -> HubUnreachable:
        cause = error.__cause__ or error
        response = getattr(cause, "response", None)
        what = type(cause).__name__ if response is None else f"it answered {response.status_code}"
        return HubUnreachable(
            f"{self.address} could not be reached ({what}, {tries} tries). What arrived there is not sent again: the next "
            "run goes on from here."
        )

    def _hidden(self, text: str) -> str:
        """A server may quote the key it refuses, and addresses may be keys."""
        shown = " ".join(_QUERY.sub("?...", text).split())
        return (shown if self._token is None else shown.replace(self._token, "***"))[:_SHOWN_CHARS]


@contextmanager
def _discreet() -> Iterator[None]:
    """Keeps signed addresses of uploads out of every log."""
    before = {logging.getLogger(name): logging.getLogger(name).level for name in _TALKATIVE}
    for logger in before:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _asked_to_wait(error: Exception) -> float:
    """Seconds that the server asked for, within reason."""
    response = getattr(error, "response", None)
    asked = "" if response is None else str(response.headers.get("Retry-After", ""))
    return min(float(asked), _LONGEST_PAUSE_S) if asked.isdigit() else 0.0


def _patient_client() -> httpx.Client:
    client = default_client_factory()
    client.timeout = httpx.Timeout(_TIMEOUT_S)
    return client
