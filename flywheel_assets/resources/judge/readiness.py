"""Readiness: a judge is waited for, and the wait is shown, so that a run that waits does not look like one that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from flywheel_assets.resources.judge.choice import JudgeError
from flywheel_assets.resources.serving import Endpoint, NotReady, RemoteModel, ServingError, remote_endpoint
from flywheel_assets.settings import Candidate, JudgeSettings, Settings

Say = Callable[[str], None]

# A server that loads a large model takes minutes; after the first tries, asking every 15 s finds it soon enough.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0


class Deploys(Protocol):
    """What of a platform a local judge needs."""

    def deployed(self, candidate: Candidate, *, adapter: Path | None, owner: str) -> AbstractContextManager[Endpoint]:
        """A candidate behind an endpoint, given back when the block ends."""


@contextmanager
def judge_endpoint(
    settings: Settings, judge: JudgeSettings, platform: Deploys, *, owner: str, say: Say
) -> Iterator[Endpoint]:
    """A judge that answers, for as long as the block lasts; a local one is deployed for it, in the GPU budget.

    What cannot be reached yet is tried again for `judge.wait_s` seconds, and `say` is told. What a wait does not mend (a
    wrong key, name or file) is a JudgeError at once.
    """
    with ExitStack() as stack:

        def attempt() -> Endpoint:
            if judge.candidate is None:
                return remote_endpoint(RemoteModel("judge", judge.model or "", judge.model_name, judge.api_key_env))
            candidate = settings.candidate(judge.candidate)
            return stack.enter_context(platform.deployed(candidate, adapter=None, owner=owner))

        say(f"judge {judge.name}: {'deploying it' if judge.candidate else 'looking for it'}")
        try:
            endpoint = _wait_for(attempt, judge, say)
        except NotReady as error:
            raise JudgeError(
                f"the judge '{judge.name}' was not ready within {judge.wait_s:g} s (judge.wait_s); the last answer: {error}"
            ) from error
        except ServingError as error:
            raise JudgeError(f"the judge '{judge.name}' cannot be used: {error}") from error
        say(f"judge {judge.name}: ready, {endpoint.model} at {endpoint.base_url}")
        yield endpoint


def _wait_for(attempt: Callable[[], Endpoint], judge: JudgeSettings, say: Say) -> Endpoint:
    deadline = time.monotonic() + judge.wait_s
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return attempt()
        except NotReady as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            say(f"judge {judge.name}: not ready, waiting for {left:.0f} s more: {error}")
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
