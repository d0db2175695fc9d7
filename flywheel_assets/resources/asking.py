"""Asking: questions put to an OpenAI-compatible endpoint with bounded concurrency and patience, and what came back.

What belongs here: tries and pauses, what is worth another try, what is remembered, and when to give up. What does not: what
is asked and what an answer means (`resources.evaluation`, `resources.judge`), the server (`serving`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import openai

from flywheel_assets.core.replay import UnusableAnswerError, answer_limit, read_completion
from flywheel_assets.core.rows import Answer, Json
from flywheel_assets.resources.bounded_http import NOT_PACKED, UntrustworthyAnswer, bounded
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.prediction_cache import CachedAnswer, PredictionCache
from flywheel_assets.resources.serving import Endpoint, EndpointLost, ServerKilled

Progress = Callable[[int, int, int, int], None]
"""Called with done, total, reused from the cache, errors."""

_CONNECT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.5
# A server that asks for more than this is not waited for: the run would look dead.
_LONGEST_PAUSE_S = 60.0
_REASON_CHARS = 300
# The client library refuses to start without a key; servers without one ignore it.
_NO_KEY = "none"


@dataclass(frozen=True, slots=True)
class Question:
    """One request: the id its reply is found by, the body as it is sent, and the key it is remembered under."""

    id: str
    body: Json
    key: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one question: an answer, or an error.

    `passing`: the error is one that another day may not bring (busy, broken, out of reach), after every try that was
    allowed. Latency is milliseconds, of the call that gave the answer.
    """

    id: str
    answer: Answer | None
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    passing: bool = False
    cached: bool = False
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is asked at once and how long is waited. `setting` is the block of flywheel.yaml it comes from.

    `ends_on_trouble`: an error that may pass ends the whole asking, because questions without an answer are of no use.
    `max_error_share` (0..1): a larger share of all questions without an answer ends it, because the rest cannot mend that.
    """

    concurrency: int
    timeout_s: float
    max_retries: int
    setting: str
    ends_on_trouble: bool = False
    max_error_share: float = 1.0


class TooManyErrors(Exception):
    """More questions errored than may; the message says how many, the first error and what to do. Answers are kept."""


class _NeverConnectedError(Exception):
    """Every try of a request failed before anybody listened."""


class _TroubleError(Exception):
    """A question had no answer after every try, and the asking was to end with it."""


async def ask_questions(
    endpoint: Endpoint,
    questions: Sequence[Question],
    *,
    patience: Patience,
    cache: PredictionCache | None,
    progress: Progress | None,
) -> dict[str, Reply]:
    """The reply to each question, by its id; what the cache holds is not asked again, and errors are not kept in it.

    Raises EndpointLost as soon as a request could not connect within its tries (the remaining questions would say nothing
    of the model; ServerKilled where it was a process of ours that is gone), and on the first error that may pass where
    `patience` says so; TooManyErrors as soon as more questions errored than `patience` accepts. What was answered until
    then, or was in flight and is answered, is kept.
    """
    remembered = cache.get_many(q.key for q in questions) if cache is not None else {}
    found = {q.id: _remembered(q, remembered[q.key]) for q in questions if q.key in remembered}
    reused = len(found)
    errors = 0
    first_error = ""
    over = asyncio.Event()
    if progress is not None and reused:
        progress(reused, len(questions), reused, errors)

    waiting = iter([q for q in questions if q.id not in found])

    async def work(client: openai.AsyncOpenAI) -> None:
        nonlocal errors, first_error
        for question in waiting:
            reply = await _reply(client, endpoint, question, patience, over)
            if reply.error is not None:
                if reply.passing and patience.ends_on_trouble:
                    raise _TroubleError(reply.error)
                errors += 1
                first_error = first_error or reply.error
                if errors / len(questions) > patience.max_error_share:
                    over.set()
            elif cache is not None:
                cache.put(question.key, _to_remember(reply))
            found[question.id] = reply
            if progress is not None:
                progress(len(found), len(questions), reused, errors)
            if over.is_set():
                return

    # More in flight than the server computes at once would only queue there, and the queue would count as latency.
    workers = min(patience.concurrency, endpoint.slots or patience.concurrency, max(1, len(questions) - reused))
    async with _client(endpoint, patience) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work(client))
        except ExceptionGroup as failed:
            # One is enough for the caller, who knows nothing of tasks.
            (first, *_) = failed.exceptions
            if isinstance(first, _NeverConnectedError | _TroubleError):
                lost = EndpointLost if endpoint.fault() is None else ServerKilled
                raise lost(_why_lost(endpoint, first, len(found), len(questions))) from None
            raise first from None
    if over.is_set():
        raise TooManyErrors(_why_too_many(endpoint, patience, len(questions), len(found) - reused, errors, first_error))
    return found


def _client(endpoint: Endpoint, patience: Patience) -> openai.AsyncOpenAI:
    timeout = httpx2.Timeout(patience.timeout_s, connect=min(_CONNECT_TIMEOUT_S, patience.timeout_s))
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or _NO_KEY,
        # Tries are counted here: the library would also repeat 408 and 409, and not tell a refused connection apart.
        max_retries=0,
        timeout=timeout,
        http_client=_BoundedClient(
            timeout=timeout,
            trust_env=not endpoint.is_local,
            # What a user said goes where flywheel.yaml says, and to nobody whom that server names.
            follow_redirects=False,
        ),
    )


class _BoundedClient(openai.DefaultAsyncHttpxClient):
    """The client of the library, with a bound on every answer."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request; its answer is there whole. UntrustworthyAnswer where it is too large."""
        request.headers.update(NOT_PACKED)
        return await bounded(await super().send(request, **{**options, "stream": True}), request)


async def _reply(
    client: openai.AsyncOpenAI, endpoint: Endpoint, question: Question, patience: Patience, over: asyncio.Event
) -> Reply:
    """The reply to one question, after as many tries as it takes and the settings allow; none begins once it is `over`."""
    for tries_left in range(patience.max_retries, -1, -1):
        started = time.perf_counter()
        try:
            async with asyncio.timeout(patience.timeout_s):
                response = await client.post("/chat/completions", body=question.body, cast_to=httpx2.Response)
            latency_ms = (time.perf_counter() - started) * 1000
            # A server may quote our key in an answer, too, and answers are kept.
            content = response.content if not endpoint.api_key else _without_key(response.content, endpoint.api_key)
            answer, used = read_completion(content)
            return Reply(question.id, answer, latency_ms, used.prompt, used.completion, cached_tokens=used.cached)
        except (UnusableAnswerError, UntrustworthyAnswer) as error:
            return _failed(question, endpoint, f"unusable answer: {error}")
        except (openai.APIConnectionError, openai.APIStatusError, TimeoutError) as error:
            repeat = _worth_repeating(error)
            if not tries_left or not repeat or over.is_set():
                if _never_connected(error):
                    raise _NeverConnectedError(str(error.__cause__ or error)) from error
                return replace(_failed(question, endpoint, _reason(error, patience)), passing=repeat)
            if _never_connected(error) and endpoint.fault() is not None:
                raise _NeverConnectedError(str(error)) from error
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _pause(error, patience.max_retries - tries_left))
                return _failed(question, endpoint, _reason(error, patience))
    raise AssertionError("unreachable: the last try returns or raises")


def _without_key(content: bytes, key: str) -> bytes:
    return content.replace(key.encode(), b"***")


def _worth_repeating(error: Exception) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code == httpx2.codes.TOO_MANY_REQUESTS or error.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR
    return True


def _never_connected(error: Exception) -> bool:
    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)


def _pause(error: Exception, tries_done: int) -> float:
    """Seconds before the next try: what the server asks for, else doubling, with jitter (tries must not march in step)."""
    if isinstance(error, openai.APIStatusError):
        asked = error.response.headers.get("retry-after", "")
        # ASCII digits alone: to Python, other signs are digits as well, and no numbers.
        if asked.isascii() and asked.replace(".", "", 1).isdigit():
            return min(float(asked), _LONGEST_PAUSE_S)
    return min(_FIRST_PAUSE_S * 2.0**tries_done, _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)


def _reason(error: Exception, patience: Patience) -> str:
    if isinstance(error, openai.APIStatusError):
        if error.response.is_redirect:
            where = without_credentials(error.response.headers.get("location", "elsewhere"))
            return (
                f"HTTP {error.status_code}: it sends us to {where}, and conversations are not sent on; name that URL itself"
            )
        return f"HTTP {error.status_code}: {error.message}"
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return f"no answer within {patience.timeout_s:g} s ({patience.setting}.timeout_s)"
    return f"connection failed: {error.__cause__ or error}"


def _failed(question: Question, endpoint: Endpoint, reason: str) -> Reply:
    # A server may quote the key it refuses, and reports are for everybody.
    if endpoint.api_key:
        reason = reason.replace(endpoint.api_key, "***")
    shown = " ".join(reason.split())
    return Reply(question.id, None, error=shown if len(shown) <= _REASON_CHARS else shown[:_REASON_CHARS] + "...")


def _remembered(question: Question, entry: CachedAnswer) -> Reply:
    answer, limit = entry.answer, answer_limit(question.body)
    if not entry.knows_end and limit is not None and (entry.completion_tokens or 0) >= limit:
        # From before the end of an answer was read: one that took every token it was allowed was cut off there.
        answer = replace(answer, cut_off="length")
    return Reply(
        question.id,
        answer,
        latency_ms=entry.latency_ms,
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        cached=True,
        cached_tokens=entry.cached_tokens,
    )


def _to_remember(reply: Reply) -> CachedAnswer:
    assert reply.answer is not None
    return CachedAnswer(reply.answer, reply.latency_ms, reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)


def _why_lost(endpoint: Endpoint, lost: Exception, done: int, total: int) -> str:
    known = endpoint.fault()
    if known is None and isinstance(lost, _TroubleError):
        known = f"{endpoint.shown_url} gave no answer, however often it was asked: {lost}."
    why = known if known is not None else f"{endpoint.shown_url} does not accept connections any more ({lost})."
    return f"{why}\n{done} of {total} rows were answered and are kept; start the server again and repeat the run."


def _why_too_many(endpoint: Endpoint, patience: Patience, total: int, asked: int, errors: int, first: str) -> str:
    """One line: it is shown in tables."""
    return (
        f"given up: {errors} of the {asked} rows asked so far errored, of {total} rows in all, and {patience.setting}."
        f"max_error_share accepts {patience.max_error_share:.0%} of them; the first error: {first}. Look at "
        f"{endpoint.shown_url}, then repeat the run: what was answered is kept, and only the rest is asked."
    )
