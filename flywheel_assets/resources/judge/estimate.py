"""Estimate: what judging costs, said before it is done.

Prompt tokens are the characters of the prompts over four, verdicts eight tokens each (`core.judge.rubrics`): good enough to
see a dollar from a hundred, no invoice. A judge that reasons before it answers costs more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from flywheel_assets.core import graph
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.judge import JudgeQuestion, Rubric, estimated_tokens, questions_about
from flywheel_assets.core.judge.rubrics import VERDICT_TOKENS
from flywheel_assets.core.rows import Json, Prediction, Variant, WorkloadType
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import token_prices
from flywheel_assets.resources.judge.choice import judge_columns, read_labels
from flywheel_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what some questions to a judge take; `usd` is None without a price for it."""

    judge: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None

    @classmethod
    def of(cls, settings: Settings, judge: str, questions: Iterable[JudgeQuestion], *, times: int = 1) -> Estimate:
        """The estimate of asking these questions, or ones like them `times` over."""
        sizes = [estimated_tokens(question.messages) for question in questions]
        prompt, completion = times * sum(sizes), times * VERDICT_TOKENS * len(sizes)
        price = token_prices(settings).get(judge)
        return cls(judge, times * len(sizes), prompt, completion, None if price is None else price.of(prompt, completion))

    @property
    def words(self) -> str:
        """It in a sentence's end."""
        cost = f"about ${self.usd:.2f}" if self.usd is not None else f"no price known (prices.{self.judge})"
        return f"{self.calls:,} calls, about {self.prompt_tokens:,} + {self.completion_tokens:,} tokens, {cost}"

    def plus(self, other: Estimate) -> Estimate:
        """Both together."""
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Estimate(
            self.judge,
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            usd,
        )


def judging_plan(flywheel: Flywheel, workload: str) -> Json | None:
    """What judging a workload costs at most, for `flywheel plan`; None where it has no judge.

    Every variant of every candidate once on the eval rows that stand now, nothing from the cache, each answer as long as the
    reference; and the labels once. `calls` is None while there are no eval rows.
    """
    settings = flywheel.settings
    judge = settings.judge_for(workload)
    if not judge.is_configured:
        return None
    profile, base = (flywheel.artifacts.current(asset, Partition(workload)) for asset in (graph.PROFILE, graph.BASE))
    if profile is None or base is None or base.state != "ok":
        return {"judge": judge.name, "columns": None, "calls": None, "usd": None}
    kind = WorkloadType(profile.summary["type"])
    columns = judge_columns(settings, workload, kind)
    rows = read_eval_rows(base.path)
    answers = [Prediction(row.row_id, row.reference) for row in rows]
    arms = len(Variant) * len(settings.candidates_of(workload))
    about = questions_about(columns, rows, answers, workload_type=kind)
    asked = Estimate.of(settings, judge.name, about, times=arms)
    labels = Estimate.of(settings, judge.name, _about_labels(columns, flywheel, workload, kind))
    return {**asdict(asked.plus(labels)), "columns": [column.value for column in columns]}


def _about_labels(
    columns: tuple[Rubric, ...], flywheel: Flywheel, workload: str, kind: WorkloadType
) -> Iterable[JudgeQuestion]:
    return questions_about(columns, (), (), read_labels(flywheel.settings, workload), workload_type=kind)
