"""Judging: the questions about one evaluation put to its judge, and what came of them.

A verdict is remembered as the judge's text, under the judge's identity, the rubrics' version and the whole prompt. Text that
is no verdict is remembered too: a greedy judge would only repeat it, and reading is done anew each time. Errors are not.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.core.judge import (
    RUBRIC_VERSION,
    Judged,
    JudgeQuestion,
    LabelledAnswer,
    Rubric,
    questions_about,
    read_replies,
)
from flywheel_assets.core.replay import greedy_request
from flywheel_assets.core.rows import EvalRow, Prediction, Variant, WorkloadType
from flywheel_assets.resources.asking import Patience, Progress, Question, Reply, ask_questions
from flywheel_assets.resources.judge.choice import JudgeError, JudgeKilled
from flywheel_assets.resources.judge.estimate import Estimate
from flywheel_assets.resources.judge.readiness import Deploys, Say, judge_endpoint
from flywheel_assets.resources.prediction_cache import PredictionCache, prediction_key
from flywheel_assets.resources.processes import KilledFromOutside
from flywheel_assets.resources.serving import Endpoint, EndpointLost
from flywheel_assets.settings import JudgeSettings, Settings

CACHE_FILE = Path("cache") / "verdicts.sqlite"
# A person watching wants to see it move; the log does not want a row a verdict.
_PROGRESS_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class JudgeOrder:
    """What is to be judged: the answers to some rows, in some columns, by a workload's judge.

    `owner` is the run it is for; `say` is told how it stands.
    """

    settings: Settings
    workload: str
    workload_type: WorkloadType
    columns: Sequence[Rubric]
    rows: Sequence[EvalRow]
    predictions: Sequence[Prediction]
    labels: Sequence[LabelledAnswer]
    owner: str
    say: Say


def judge_answers(order: JudgeOrder, platform: Deploys) -> Judged:
    """The judge columns of one evaluation.

    Raises JudgeError where the judge is not ready in time, cannot be used, or is lost on the way; what it said until then is
    kept, and the next attempt asks for the rest only. A question it refuses for good (400, ...) has no verdict.
    """
    judge = order.settings.judge_for(order.workload)
    questions = list(
        questions_about(order.columns, order.rows, order.predictions, order.labels, workload_type=order.workload_type)
    )
    replies: dict[str, str | None] = {}
    if questions:
        with (
            judge_endpoint(order.settings, judge, platform, owner=order.owner, say=order.say) as endpoint,
            PredictionCache(order.settings.home / CACHE_FILE) as cache,
        ):
            replies = _ask(endpoint, judge, questions, cache, order)
    return read_replies(
        order.columns,
        order.rows,
        order.predictions,
        replies,
        order.labels,
        threshold=judge.similarity_threshold,
        workload_type=order.workload_type,
    )


def _ask(
    endpoint: Endpoint, judge: JudgeSettings, questions: Sequence[JudgeQuestion], cache: PredictionCache, order: JudgeOrder
) -> dict[str, str | None]:
    """The judge's words by question id; equal questions are asked once."""
    keyed = {question.id: _keyed(endpoint, judge, question) for question in questions}
    distinct = {question.key: question for question in keyed.values()}
    known = cache.get_many(distinct)
    unknown = {keyed[question.id].key: question for question in questions if keyed[question.id].key not in known}
    estimate = Estimate.of(order.settings, judge.name, unknown.values())
    order.say(
        f"judge {judge.name}: {len(questions):,} questions about {', '.join(order.columns)}, {len(known):,} answers in the "
        f"cache; to ask: {estimate.words}"
    )
    patience = Patience(judge.concurrency, judge.timeout_s, judge.max_retries, "judge", ends_on_trouble=True)
    asking = ask_questions(
        endpoint, list(distinct.values()), patience=patience, cache=cache, progress=_progress(judge.name, order.say)
    )
    try:
        replies = asyncio.run(asking)
    except EndpointLost as lost:
        kept = len(cache.get_many(distinct))
        failure = JudgeKilled if isinstance(lost, KilledFromOutside) else JudgeError
        raise failure(
            f"the judge '{judge.name}' was lost: {str(lost).splitlines()[0]} {kept} of {len(distinct)} verdicts are kept; "
            "see to the judge and run this again, which asks for the rest only."
        ) from None
    _say_refusals(replies, order.say)
    return {name: _words(replies[distinct[question.key].id]) for name, question in keyed.items()}


def _keyed(endpoint: Endpoint, judge: JudgeSettings, question: JudgeQuestion) -> Question:
    body = greedy_request({"messages": question.messages}, model=endpoint.model, max_tokens=judge.max_tokens)
    asked = f"{RUBRIC_VERSION}:{prediction_key(body, endpoint, Variant.BASE)}"
    return Question(question.id, body, hashlib.sha256(asked.encode()).hexdigest())


def _words(reply: Reply) -> str | None:
    return None if reply.answer is None else reply.answer.content


def _say_refusals(replies: dict[str, Reply], say: Callable[[str], None]) -> None:
    refused = [reply.error for reply in replies.values() if reply.error is not None]
    if refused:
        say(f"the judge gave no verdict on {len(refused)} questions; the first: {refused[0]}")


def _progress(name: str, say: Callable[[str], None]) -> Progress:
    last = 0.0

    def report(done: int, total: int, cached: int, errors: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _PROGRESS_EVERY_S:
            return
        last = now
        trouble = f", {errors} refused" if errors else ""
        say(f"judge {name}: {done}/{total} questions, {cached} from the cache{trouble}")

    return report
