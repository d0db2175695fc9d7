"""Evaluation: eval rows put to a model, and its answers.

What belongs here: asking with bounded concurrency and patience, what is an error, and when to give up. What does not: how
a logged request is replayed and an answer read (`core.replay`), metrics (`core.metrics`), the server (`serving`), what is
remembered (`prediction_cache`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx2
import openai

from flywheel_assets.core.replay import UnusableAnswerError, greedy_request, read_completion, sampled_request
from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.prediction_cache import CachedAnswer, PredictionCache, prediction_key
from flywheel_assets.resources.serving import Endpoint, EndpointLost
from flywheel_assets.settings import EvaluationSettings

Progress = Callable[[int, int, int, int], None]
"""Called with done, total, reused from the cache, errors."""

_CONNECT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.5
# A server that asks for more than this is not waited for: the run would look dead.
_LONGEST_PAUSE_S = 60.0
_REASON_CHARS = 300
# The client library refuses to start without a key; servers without one ignore it.
_NO_KEY = "none"


class _NeverConnectedError(Exception):
    """Every try of a request failed before anybody listened."""


@dataclass(frozen=True, slots=True)
class _Question:
    row_id: str
    body: Json
    key: str


def evaluate(
    endpoint: Endpoint,
    rows: Sequence[EvalRow],
    *,
    variant: Variant,
    prefix_messages: Sequence[Json] = (),
    settings: EvaluationSettings,
    cache: PredictionCache | None = None,
    progress: Progress | None = None,
    sample: int = 0,
) -> list[Prediction]:
    """One prediction a row, in the order of the rows; what the cache holds is not asked again.

    `sample` 0 is the greedy answer; from 1 on each is another draw, sampled as the log says, with an entry of its own.

    A row that cannot be answered becomes a prediction with an `error`, and is asked again by the next evaluation. Raises
    EndpointLost as soon as a request could not connect within its tries: the remaining rows say nothing about the model.
    Not for use inside a running event loop: see `ask_all`.
    """
    asking = ask_all(
        endpoint,
        rows,
        variant=variant,
        prefix_messages=prefix_messages,
        settings=settings,
        cache=cache,
        progress=progress,
        sample=sample,
    )
    return asyncio.run(asking)


async def ask_all(
    endpoint: Endpoint,
    rows: Sequence[EvalRow],
    *,
    variant: Variant,
    prefix_messages: Sequence[Json],
    settings: EvaluationSettings,
    cache: PredictionCache | None,
    progress: Progress | None,
    sample: int = 0,
) -> list[Prediction]:
    """`evaluate`, for callers that have an event loop."""
    questions = [_question(endpoint, row, variant, prefix_messages, settings, sample) for row in rows]
    remembered = cache.get_many(q.key for q in questions) if cache is not None else {}
    found = {q.row_id: _remembered(q.row_id, remembered[q.key]) for q in questions if q.key in remembered}
    reused = len(found)
    errors = 0
    if progress is not None and reused:
        progress(reused, len(rows), reused, errors)

    waiting = iter([q for q in questions if q.row_id not in found])

    async def work(client: openai.AsyncOpenAI) -> None:
        nonlocal errors
        for question in waiting:
            prediction = await _predict(client, endpoint, question, settings)
            if prediction.error is not None:
                errors += 1
            elif cache is not None:
                cache.put(question.key, _to_remember(prediction))
            found[question.row_id] = prediction
            if progress is not None:
                progress(len(found), len(rows), reused, errors)

    # More in flight than the server computes at once would only queue there, and the queue would count as latency.
    workers = min(settings.concurrency, endpoint.slots or settings.concurrency, max(1, len(rows) - reused))
    async with _client(endpoint, settings) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work(client))
        except ExceptionGroup as failed:
            # One is enough for the caller, who knows nothing of tasks.
            (first, *_) = failed.exceptions
            if isinstance(first, _NeverConnectedError):
                raise EndpointLost(_why_lost(endpoint, first, len(found), len(rows))) from None
            raise first from None
    return [found[row.row_id] for row in rows]


def _question(
    endpoint: Endpoint,
    row: EvalRow,
    variant: Variant,
    prefix_messages: Sequence[Json],
    settings: EvaluationSettings,
    sample: int,
) -> _Question:
    extra = endpoint.extra_body(variant)
    if sample:
        body = sampled_request(row.request, model=endpoint.model, max_tokens=settings.max_tokens, extra=extra)
    else:
        body = greedy_request(
            row.request,
            model=endpoint.model,
            prefix_messages=prefix_messages,
            max_tokens=settings.max_tokens,
            extra=extra,
        )
    return _Question(row.row_id, body, prediction_key(body, endpoint, variant, sample=sample))


def _client(endpoint: Endpoint, settings: EvaluationSettings) -> openai.AsyncOpenAI:
    timeout = httpx2.Timeout(settings.timeout_s, connect=min(_CONNECT_TIMEOUT_S, settings.timeout_s))
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or _NO_KEY,
        # Tries are counted here: the library would also repeat 408 and 409, and not tell a refused connection apart.
        max_retries=0,
        timeout=timeout,
        http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, trust_env=not endpoint.is_local),
    )


async def _predict(
    client: openai.AsyncOpenAI, endpoint: Endpoint, question: _Question, settings: EvaluationSettings
) -> Prediction:
    """One row's prediction, after as many tries as it takes and the settings allow."""
    for tries_left in range(settings.max_retries, -1, -1):
        started = time.perf_counter()
        try:
            async with asyncio.timeout(settings.timeout_s):
                response = await client.post("/chat/completions", body=question.body, cast_to=httpx2.Response)
            latency_ms = (time.perf_counter() - started) * 1000
            answer, prompt_tokens, completion_tokens = read_completion(response.content)
            return Prediction(question.row_id, answer, latency_ms, prompt_tokens, completion_tokens)
        except UnusableAnswerError as error:
            return _failed(question, endpoint, f"unusable answer: {error}")
        except (openai.APIConnectionError, openai.APIStatusError, TimeoutError) as error:
            if not tries_left or not _worth_repeating(error):
                if _never_connected(error):
                    raise _NeverConnectedError(str(error.__cause__ or error)) from error
                return _failed(question, endpoint, _reason(error, settings))
            if _never_connected(error) and endpoint.fault() is not None:
                raise _NeverConnectedError(str(error)) from error
            await asyncio.sleep(_pause(error, settings.max_retries - tries_left))
    raise AssertionError("unreachable: the last try returns or raises")


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
        if asked.replace(".", "", 1).isdigit():
            return min(float(asked), _LONGEST_PAUSE_S)
    return min(_FIRST_PAUSE_S * 2.0**tries_done, _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)


def _reason(error: Exception, settings: EvaluationSettings) -> str:
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}: {error.message}"
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return f"no answer within {settings.timeout_s:g} s (evaluation.timeout_s)"
    return f"connection failed: {error.__cause__ or error}"


def _failed(question: _Question, endpoint: Endpoint, reason: str) -> Prediction:
    # A server may quote the key it refuses, and reports are for everybody.
    if endpoint.api_key:
        reason = reason.replace(endpoint.api_key, "***")
    shown = " ".join(reason.split())
    return Prediction(question.row_id, None, error=shown if len(shown) <= _REASON_CHARS else shown[:_REASON_CHARS] + "...")


def _remembered(row_id: str, entry: CachedAnswer) -> Prediction:
    return Prediction(
        row_id,
        entry.answer,
        latency_ms=entry.latency_ms,
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        cached=True,
    )


def _to_remember(prediction: Prediction) -> CachedAnswer:
    assert prediction.answer is not None
    return CachedAnswer(prediction.answer, prediction.latency_ms, prediction.prompt_tokens, prediction.completion_tokens)


def _why_lost(endpoint: Endpoint, lost: _NeverConnectedError, done: int, total: int) -> str:
    known = endpoint.fault()
    why = known if known is not None else f"{endpoint.base_url} does not accept connections any more ({lost})."
    return f"{why}\n{done} of {total} rows were answered and are kept; start the server again and repeat the run."
