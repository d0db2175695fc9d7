"""The exam: how many rows it holds, when one may look at it, how its rows are drawn, and what that makes scores be about.

What belongs here: the plain data about an exam that datasets, comparisons, decisions and reports share, and its sentences.
What does not: how large an exam must be (its caller plans that, from the gates), and drawing rows (`draw`, `exam_draw`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from flywheel_assets.core.rows import Json

# What `split.eval_size` was by default before it could be computed: workloads that began then keep it.
OLD_EVAL_SIZE = 100
# Where the limit per conversation leaves out this share of the turns (0..1) or more, what happens there must be asked about.
_MANY_TURNS = 0.2


class Draw(StrEnum):
    """How the eval rows are taken from the eval side: in the proportions of the traffic, or evenly over tools."""

    PROPORTIONAL = "proportional"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True)
class ExamFacts:
    """What is known of a workload when its exam is planned; no score is.

    `examinable` rows on the eval side may be drawn today, once the limit per conversation is kept (0 where that side
    is empty yet). `kinds` counts by class
    (`tool:NAME`, `no_call`, `text`) every usable row that may be examined on, of both sides and within that limit: more rows
    tell the shares of the classes better. `conversation_sizes` counts the conversations of these rows by how many they have.
    """

    examinable: int
    kinds: Mapping[str, int]
    conversation_sizes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ExamPlan:
    """How many eval rows to draw at most (1 or more), the row counts at which to look, and a sentence that says why.

    `default_margins` are those of the gates that hold where none are registered, by metric; None: the metric applies to too
    few rows for a gate. They are registered with the exam, so that they do not change with the rows that are drawn.
    """

    eval_size: int
    looks: tuple[int, ...]
    note: str
    default_margins: Mapping[str, float | None] = field(default_factory=dict)


PlanExam = Callable[[ExamFacts], ExamPlan]


def plain_plan(facts: ExamFacts) -> ExamPlan:
    """300 rows and no looks: a plan for callers that know of no gates."""
    return ExamPlan(300, (), "300 eval rows, whatever the gates are.")


@dataclass(frozen=True, slots=True)
class Exam:
    """The exam a build drew, by the terms in force.

    `auto`: its size was not set but planned (or, in workloads that began before that was possible, is the old default).
    `share_of_records` (0..1) of what is ingested is expected to be examinable, whatever becomes of the rest.
    `eval_side_rows` are the usable rows on the eval side; of them, `over_limit` rows were too many of one conversation, and
    `not_drawn` further ones would make a larger exam. `default_margins` is `ExamPlan`'s; None where the workload began
    before they were registered. `floor_rows` of the drawn ones were added to rare classes and are no part of the sample.
    `uneven`: an even draw took of some class a row more or less than its share, or several.
    """

    eval_size: int
    auto: bool
    looks: tuple[int, ...]
    draw: Draw
    max_rows_per_conversation: int | None
    share_of_records: float
    eval_side_rows: int
    not_drawn: int
    over_limit: int
    note: str
    default_margins: Mapping[str, float | None] | None = None
    floor_rows: int = 0
    uneven: bool = False

    def to_json(self) -> Json:
        """JSON-ready, with the fields' names."""
        return {**asdict(self), "looks": list(self.looks), "draw": self.draw.value}


def meaning_of(exam: Mapping[str, object]) -> Json:
    """What of an exam (`Exam.to_json`) changes what its scores mean; empty where it is drawn as exams always were.

    Empty also for an exam nothing was recorded of. Counts are left out: they change with every new record.
    """
    if not exam or (exam["draw"] == Draw.BALANCED and exam["max_rows_per_conversation"] is None and not exam["looks"]):
        return {}
    margins = {"default_margins": exam["default_margins"]} if exam.get("default_margins") else {}
    return {name: exam[name] for name in ("eval_size", "looks", "draw", "max_rows_per_conversation")} | margins


def remarks_on(exam: Json) -> Iterator[str]:
    """What a reader must know of how the rows were drawn, one sentence a line; nothing where all rows are examined on."""
    if exam.get("over_limit"):
        limit = exam["max_rows_per_conversation"]
        were = "1 row of one conversation was" if limit == 1 else f"{limit} rows of one conversation were"
        share = exam["over_limit"] / max(1, exam["eval_side_rows"])
        warning = (
            " A model that fails on long conversations may pass: raise split.max_rows_per_conversation if they matter."
            if share >= _MANY_TURNS
            else ""
        )
        yield (
            f"At most {were} drawn, which left out {share:.0%} of the turns: scores are about conversations so capped, not "
            f"about every turn.{warning}"
        )
    if exam.get("draw") == Draw.BALANCED and exam["not_drawn"] and exam.get("uneven", True):
        yield "Rows were drawn evenly over tools: means and gates are about that mix, not about the traffic."
    if exam.get("floor_rows"):
        yield f"{exam['floor_rows']} further rows of rare classes count in no mean and no gate: they are the suite `draw`."
