"""The split: which records are examined on, trained on, validated on, and why each of the others is in no file.

What belongs here: the order of the steps, on arrays. What does not: what the settings say (`policy`), sides
(`assignment`), the exam's draw (`exam_draw`), files (`build`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flywheel_assets.core.cleaning import QualityPolicy
from flywheel_assets.core.datasets.assignment import Assignment, KnownKeys, Side, SplitTerms, assign_sides, uniform_hash
from flywheel_assets.core.datasets.columns import IndexColumns
from flywheel_assets.core.datasets.draw import balanced_draw, training_window_end
from flywheel_assets.core.datasets.exam import Draw, Exam, PlanExam, plain_plan
from flywheel_assets.core.datasets.exam_draw import draw_exam, exam_in_force, with_plan
from flywheel_assets.core.datasets.index import Array
from flywheel_assets.core.datasets.manifest import Fates, LeftOut, Split
from flywheel_assets.core.datasets.policy import SplitPolicy

# An exam never gets more than half of a young workload: the other half must be left to train on.
MAX_EVAL_SHARE = 0.5
# The eval side must hold a planned exam although nobody knows yet how much traffic will come: three conversations in ten
# are enough of most, and leave most to train on.
AUTO_EVAL_SHARE = 0.3
# A handful of long conversations must not become the exam; what a fourth row of one adds is little.
MAX_ROWS_PER_CONVERSATION = 3


class NotEnoughRecords(Exception):
    """A workload has too few usable records for datasets; the message says how many are missing and what to do."""


@dataclass(frozen=True, slots=True)
class SplitResult:
    """The fate of every row, the eval rows in the order they are examined, and what is remembered for the next build.

    `chances` (0..1, one an eval row) are those with which each came into the exam.
    """

    fates: Fates
    eval_rows: Array
    chances: Array
    exam: Exam
    usable: int
    terms: SplitTerms
    known: KnownKeys
    window_end: float | None
    notes: tuple[str, ...] = field(default=())


def split_rows(
    columns: IndexColumns,
    policy: SplitPolicy,
    before: tuple[SplitTerms, KnownKeys] | None,
    workload: str,
    quality: QualityPolicy | None = None,
    plan_exam: PlanExam = plain_plan,
) -> SplitResult:
    """Decide on every row. `before` is what the last build remembered, None for a workload's first.

    `quality` says which answers are not used (None: all are). Such rows are not usable, and take no side. `plan_exam` is
    asked once, at the first build, where the policy says "auto".

    Seed and eval share are those of the first build, whatever the policy says now: with others, rows would change
    sides. `notes` says so where they differ. Raises NotEnoughRecords.
    """
    fates = Fates.undecided(columns.rows)
    fates.leave_out(columns.superseded, LeftOut.SUPERSEDED)
    fates.leave_out(columns.duplicates, LeftOut.DUPLICATE)
    rows = fates.undecided_rows()
    fates.leave_out(rows[~columns.supported[rows]], LeftOut.UNSUPPORTED_CONTENT)
    _leave_out_for_quality(columns, fates, quality or QualityPolicy())
    rows = fates.undecided_rows()
    _refuse_too_few(columns, rows, policy, workload)
    terms, known = before or (_first_terms(columns, rows, policy), KnownKeys.none())
    assignment, known = assign_sides(
        terms, known, columns.prompt[rows], columns.session[rows], columns.train_only[rows], columns.near[rows]
    )
    linked = assignment.links
    fates.sides[rows] = np.where(linked, Side.UNKNOWN, assignment.sides)
    fates.clusters[rows] = assignment.clusters
    fates.leave_out(rows[linked], LeftOut.LINKS_BOTH_SIDES)
    fates.leave_out(rows[~linked & (assignment.sides == Side.EVAL) & columns.train_only[rows]], LeftOut.TRAIN_ONLY_SOURCE)
    if before is None:
        terms = with_plan(columns, fates, policy, terms, plan_exam)
    exam = exam_in_force(columns, policy, terms, fates)
    window_end = _narrow_to_window(columns, fates, exam.eval_size) if policy.strategy == "time" else None
    eval_rows, chances, exam = draw_exam(columns, fates, policy, terms, exam)
    _split_training_side(columns, fates, policy, terms, rows, assignment)
    notes = tuple(_notes(policy, terms, workload)) if before is not None else ()
    return SplitResult(fates, eval_rows, chances, exam, len(rows), terms, known, window_end, notes)


def _leave_out_for_quality(columns: IndexColumns, fates: Fates, quality: QualityPolicy) -> None:
    rows = fates.undecided_rows()
    # The last reason given is the one that stands: what a person said weighs most.
    if quality.drop_refusals:
        fates.leave_out(rows[columns.refusal[rows]], LeftOut.REFUSAL)
    if quality.drop_truncated:
        fates.leave_out(rows[columns.cut_off[rows]], LeftOut.TRUNCATED)
    if quality.min_feedback is not None:
        # NaN, the score of what nobody rated, is below nothing.
        fates.leave_out(rows[columns.feedback[rows] < quality.min_feedback], LeftOut.LOW_FEEDBACK)


def _refuse_too_few(columns: IndexColumns, rows: Array, policy: SplitPolicy, workload: str) -> None:
    missing = policy.min_total_records - len(rows)
    if missing > 0:
        raise NotEnoughRecords(
            f"workload '{workload}': {len(rows)} records, {policy.min_total_records} needed (split.min_total_records). "
            f"Ingest {missing} more, or lower it in flywheel.yaml."
        )
    if columns.train_only[rows].all():
        sources = ", ".join(sorted(columns.source_counts))
        raise NotEnoughRecords(
            f"workload '{workload}': all {len(rows)} records come from train-only sources ({sources}), none is left to "
            f"examine on. Ingest traffic, or set workloads.{workload}.train_only_sources: [] in flywheel.yaml."
        )


def _first_terms(columns: IndexColumns, rows: Array, policy: SplitPolicy) -> SplitTerms:
    examinable = int((~columns.train_only[rows]).sum())
    share = policy.eval_share
    if share is None:
        size = policy.eval_size
        share = min(MAX_EVAL_SHARE, size / examinable) if isinstance(size, int) else AUTO_EVAL_SHARE
    limit = policy.max_rows_per_conversation
    return SplitTerms(
        random_seed=policy.random_seed,
        eval_share=share,
        fixed_over=examinable,
        draw=policy.draw or Draw.PROPORTIONAL,
        max_rows_per_conversation=MAX_ROWS_PER_CONVERSATION if limit is None else limit,
    )


def _narrow_to_window(columns: IndexColumns, fates: Fates, eval_size: int) -> float:
    rows = fates.undecided_rows()
    on_eval_side = fates.sides[rows] == Side.EVAL
    end = training_window_end(columns.timestamp[rows[on_eval_side]], eval_size)
    late = columns.timestamp[rows] > end
    fates.leave_out(rows[on_eval_side & ~late], LeftOut.BEFORE_EXAM_WINDOW)
    fates.leave_out(rows[~on_eval_side & late], LeftOut.AFTER_TRAINING_WINDOW)
    return end


def _split_training_side(
    columns: IndexColumns, fates: Fates, policy: SplitPolicy, terms: SplitTerms, rows: Array, assignment: Assignment
) -> None:
    """Validation by hash of the cluster; rows that link a validated and a trained cluster are left out; then `limit`."""
    on_side = (fates.sides[rows] == Side.TRAIN) & (fates.reasons[rows] == 0)
    rows, places = rows[on_side], assignment.places[on_side]
    validated = uniform_hash("validation", terms.random_seed, assignment.clusters[on_side]) < policy.val_ratio
    key_validated = uniform_hash("validation", terms.random_seed, assignment.key_clusters) < policy.val_ratio
    links = np.zeros(len(rows), bool)
    for column in places.T:
        links |= (column >= 0) & (key_validated[column] != validated)
    fates.leave_out(rows[links], LeftOut.LINKS_TRAIN_AND_VALIDATION)
    rows, validated = rows[~links], validated[~links]
    for split, members, limit in (
        (Split.TRAIN, rows[~validated], policy.limit),
        (Split.VALIDATION, rows[validated], _validation_limit(policy)),
    ):
        order = uniform_hash("draw", terms.random_seed, columns.conversation[members])
        size = len(members) if limit is None else limit
        drawn = balanced_draw(columns.kinds[members], order, size, rare=policy.rare_class_rows)
        fates.leave_out(np.delete(members, drawn), LeftOut.OVER_LIMIT)
        fates.splits[members[drawn]] = split


def _validation_limit(policy: SplitPolicy) -> int | None:
    if policy.limit is None:
        return None
    return max(1, round(policy.limit * policy.val_ratio / (1 - policy.val_ratio)))


def _notes(policy: SplitPolicy, terms: SplitTerms, workload: str) -> list[str]:
    notes = []
    if policy.random_seed != terms.random_seed:
        notes.append(
            f"split.random_seed is {policy.random_seed}, but {terms.random_seed} stays in force: it was fixed with the "
            f"first dataset of '{workload}', so that no row ever changes sides."
        )
    if policy.eval_share is not None and policy.eval_share != terms.eval_share:
        notes.append(
            f"an eval share of {policy.eval_share:g} is asked for, but {terms.eval_share:g} stays in force: it was fixed "
            f"with the first dataset of '{workload}'."
        )
    return notes
