"""The sheet: every question a judge gets about one evaluation, and the columns its replies make.

What belongs here: which rows are asked about, and what becomes of errors, of replies that are no verdict and of pairs. What
does not: the words (`rubrics`, `verdicts`), and asking (`resources.judge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.judge.calibration import calibrate, corrected_rate
from flywheel_assets.core.judge.columns import Rubric, applies, labelled_rubric
from flywheel_assets.core.judge.labels import LabelledAnswer
from flywheel_assets.core.judge.rubrics import ask_about, ask_to_compare
from flywheel_assets.core.judge.swap import Resolved, resolve
from flywheel_assets.core.judge.verdicts import parse_score, parse_winner, to_share
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, WorkloadType

Replies = Mapping[str, str | None]
"""What the judge said, by the id of the question; None where it said nothing that could be read."""

_SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """One question to a judge, as messages. The id says which column, row and order it belongs to."""

    id: str
    messages: list[Json]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge made of one evaluation.

    `columns` are as those of `core.metrics.score_rows`: 0..1, NaN where a column does not apply or there is no verdict.
    `asked` counts the rows put to the judge, `unparsable` those of them without a verdict in some column.
    """

    columns: dict[str, NDArray[np.float64]]
    aggregates: Json
    asked: int
    unparsable: int
    first_unparsable: str | None = None

    @property
    def unparsable_share(self) -> float:
        """Rows without a verdict over rows asked about, 0..1."""
        return self.unparsable / self.asked if self.asked else 0.0

    def meaning(self) -> Json:
        """What of it belongs into a data version, JSON-ready: verdicts by column, and the corrected rates."""
        columns = {name: [None if np.isnan(x) else float(x) for x in column] for name, column in self.columns.items()}
        return {"columns": columns, "corrected": {k: v for k, v in self.aggregates.items() if k.endswith("_corrected")}}


def questions_about(
    columns: Sequence[Rubric],
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    labels: Sequence[LabelledAnswer] = (),
    *,
    workload_type: WorkloadType,
) -> Iterator[JudgeQuestion]:
    """The questions of some columns: about every row they apply to that has an answer, and about every labelled answer."""
    answers = {prediction.row_id: prediction.answer for prediction in predictions}
    for column in columns:
        for row in rows:
            answer = answers[row.row_id]
            if answer is None or not applies(column, row.reference, workload_type):
                continue
            if column is Rubric.PAIRWISE:
                first, second = _pair_ids(row)
                yield JudgeQuestion(first, ask_to_compare(row.request, answer, row.reference))
                yield JudgeQuestion(second, ask_to_compare(row.request, row.reference, answer))
            else:
                yield JudgeQuestion(_id(column, row), ask_about(column, row.request, row.reference, answer))
    for number, label in enumerate(labels):
        calibrated = labelled_rubric(columns, label.expected, workload_type)
        if calibrated is not None:
            yield JudgeQuestion(_label_id(number), ask_about(calibrated, label.request, label.expected, label.answer))


def read_replies(
    columns: Sequence[Rubric],
    rows: Sequence[EvalRow],
    predictions: Sequence[Prediction],
    replies: Replies,
    labels: Sequence[LabelledAnswer] = (),
    *,
    threshold: int,
    workload_type: WorkloadType,
) -> Judged:
    """The columns and aggregates of what the judge replied to `questions_about` the same things.

    `threshold` is the similarity (1 to 10) from which an answer counts as right, in calibration and the corrected rate.
    """
    answers = {prediction.row_id: prediction.answer for prediction in predictions}
    scores = {column.value: np.full(len(rows), np.nan) for column in columns}
    asked: set[int] = set()
    lost: dict[int, str | None] = {}
    inconsistent = compared = 0
    for column in columns:
        for index, row in enumerate(rows):
            if not applies(column, row.reference, workload_type):
                continue
            if answers[row.row_id] is None:
                scores[column][index] = 0.0
                continue
            asked.add(index)
            found, said = _verdict(column, row, replies)
            inconsistent += not found.consistent
            compared += column is Rubric.PAIRWISE
            if found.score is None:
                lost.setdefault(index, said)
            else:
                scores[column][index] = found.score
    aggregates: Json = {"judge_unparsable": _share(len(lost), len(asked))} if asked else {}
    if compared:
        aggregates["judge_inconsistent"] = _share(inconsistent, compared)
    answered = [answers[row.row_id] for row in rows]
    by_column: dict[Rubric, list[tuple[int, LabelledAnswer]]] = {}
    for number, label in enumerate(labels):
        if (calibrated := labelled_rubric(columns, label.expected, workload_type)) is not None:
            by_column.setdefault(calibrated, []).append((number, label))
    for column, about in by_column.items():
        aggregates |= _corrected(column, rows, answered, scores[column], replies, about, threshold)
    first = next((said or "(nothing)" for said in lost.values()), None)
    return Judged(scores, aggregates, len(asked), len(lost), None if first is None else first[:_SHOWN_CHARS])


def _verdict(column: Rubric, row: EvalRow, replies: Replies) -> tuple[Resolved, str | None]:
    """What the judge said of one row, and the words in which there is no verdict."""
    if column is Rubric.PAIRWISE:
        said = [replies[question] for question in _pair_ids(row)]
        winners = [parse_winner(text) for text in said]
        unread = next((text for text, winner in zip(said, winners, strict=True) if winner is None), None)
        return resolve(*winners), unread
    text = replies[_id(column, row)]
    return Resolved(_as_share(column, parse_score(column, text))), text


def _as_share(column: Rubric, score: int | None) -> float | None:
    if score is None:
        return None
    return to_share(score) if column is Rubric.SIMILARITY else float(score)


def _corrected(
    column: Rubric,
    rows: Sequence[EvalRow],
    answers: Sequence[Answer | None],
    scores: NDArray[np.float64],
    replies: Replies,
    labels: Sequence[tuple[int, LabelledAnswer]],
    threshold: int,
) -> Json:
    """The corrected rate of a column by the labels about it, with their numbers; nothing without verdicts.

    Of the answers with a verdict alone: an error is wrong for certain, and no judge's mistake can be made about it.
    """
    least = to_share(threshold) if column is Rubric.SIMILARITY else 1.0
    said = [_as_share(column, parse_score(column, replies[_label_id(number)])) for number, _ in labels]
    found = calibrate([label.right for _, label in labels], [None if score is None else score >= least for score in said])
    judged = [i for i, answer in enumerate(answers) if answer is not None and not np.isnan(scores[i])]
    if not judged:
        return {}
    rate = corrected_rate(scores[judged] >= least, found, [rows[i].cluster for i in judged])
    more = {"threshold": threshold} if column is Rubric.SIMILARITY else {}
    return {f"{column}_corrected": {**rate.to_json(), **more}}


def _share(count: int, n: int) -> Json:
    return {"value": count / n, "low": None, "high": None, "n": n, "count": count}


def _id(column: Rubric, row: EvalRow) -> str:
    return f"{column}:{row.row_id}"


def _pair_ids(row: EvalRow) -> tuple[str, str]:
    return f"{Rubric.PAIRWISE}:answer first:{row.row_id}", f"{Rubric.PAIRWISE}:reference first:{row.row_id}"


def _label_id(number: int) -> str:
    return f"label:{number}"
