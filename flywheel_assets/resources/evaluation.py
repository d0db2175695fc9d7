"""Evaluation: eval rows put to a model, and its answers.

What belongs here: from rows to questions and from replies to predictions. What does not: tries, pauses and giving up
(`resources.asking`), how a logged request is replayed and an answer read (`core.replay`), metrics (`core.metrics`), the
server (`serving`), what is remembered (`prediction_cache`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flywheel_assets.core.replay import greedy_request, sampled_request
from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.asking import Patience, Progress, Question, Reply, ask_questions
from flywheel_assets.resources.prediction_cache import PredictionCache, prediction_key
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.settings import EvaluationSettings


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
    EndpointLost as soon as a request could not connect within its tries (the remaining rows say nothing about the model),
    and TooManyErrors as soon as more rows errored than `max_error_share` accepts.

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
    patience = Patience(
        settings.concurrency,
        settings.timeout_s,
        settings.max_retries,
        "evaluation",
        max_error_share=settings.max_error_share,
    )
    replies = await ask_questions(endpoint, questions, patience=patience, cache=cache, progress=progress)
    return [_prediction(replies[row.row_id]) for row in rows]


def _question(
    endpoint: Endpoint,
    row: EvalRow,
    variant: Variant,
    prefix_messages: Sequence[Json],
    settings: EvaluationSettings,
    sample: int,
) -> Question:
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
    return Question(row.row_id, body, prediction_key(body, endpoint, variant, sample=sample))


def _prediction(reply: Reply) -> Prediction:
    return Prediction(
        row_id=reply.id,
        answer=reply.answer,
        latency_ms=reply.latency_ms,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        error=reply.error,
        cached=reply.cached,
        cached_tokens=reply.cached_tokens,
    )
