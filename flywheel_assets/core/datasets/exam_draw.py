"""The draw of the exam: which rows of the eval side are asked, under the terms and settings in force.

What belongs here: those terms, the limit per conversation and the draw, on arrays. What does not: sides (`assignment`), the
other steps of a split (`split`), and the arithmetic of draws (`draw`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flywheel_assets.core.datasets.assignment import Side, SplitTerms, uniform_hash
from flywheel_assets.core.datasets.columns import IndexColumns
from flywheel_assets.core.datasets.draw import (
    balanced_draw,
    floor_rows,
    over_limit,
    pool_rare,
    proportional_draw,
    shares_taken,
)
from flywheel_assets.core.datasets.exam import OLD_EVAL_SIZE, Draw, Exam, ExamFacts, PlanExam
from flywheel_assets.core.datasets.index import Array
from flywheel_assets.core.datasets.manifest import Fates, LeftOut, Split
from flywheel_assets.core.datasets.policy import SplitPolicy
from flywheel_assets.core.datasets.strata import strata_of


def with_plan(
    columns: IndexColumns, fates: Fates, policy: SplitPolicy, terms: SplitTerms, plan_exam: PlanExam
) -> SplitTerms:
    """The terms with the size of the exam, as set or as planned from what the eval side can give, and with its margins."""
    limit = terms.max_rows_per_conversation
    rows = fates.undecided_rows()
    rows = rows[~columns.train_only[rows]]
    within = rows[~_over_limit(columns, fates, rows, terms.random_seed, limit)]
    counts = np.bincount(columns.kinds[within], minlength=len(columns.kind_names)).tolist()
    sizes = np.unique(np.unique(fates.clusters[within], return_counts=True)[1], return_counts=True)
    facts = ExamFacts(
        examinable=int((fates.sides[within] == Side.EVAL).sum()),
        kinds={name: count for name, count in zip(columns.kind_names, counts, strict=True) if count},
        conversation_sizes=dict(zip(*(part.tolist() for part in sizes), strict=True)),
    )
    plan = plan_exam(facts)
    terms = replace(terms, default_margins=dict(plan.default_margins))
    if isinstance(policy.eval_size, int):
        return replace(terms, eval_size=policy.eval_size)
    return replace(terms, eval_size=plan.eval_size, looks=plan.looks, note=plan.note)


def exam_in_force(columns: IndexColumns, policy: SplitPolicy, terms: SplitTerms, fates: Fates) -> Exam:
    """What the settings say, and where they say nothing what the first build fixed; nothing is drawn yet."""
    usable = fates.undecided_rows()
    examinable = int((~columns.train_only[usable]).sum())
    limit = policy.max_rows_per_conversation
    auto = not isinstance(policy.eval_size, int)
    size = policy.eval_size if isinstance(policy.eval_size, int) else terms.eval_size or OLD_EVAL_SIZE
    old = f"{OLD_EVAL_SIZE} eval rows: this workload began before their number was computed. split.eval_size sets another."
    return Exam(
        eval_size=size,
        auto=auto,
        looks=terms.looks if auto else (),
        draw=Draw(policy.draw or terms.draw),
        max_rows_per_conversation=terms.max_rows_per_conversation if limit is None else limit,
        share_of_records=terms.eval_share * examinable / max(1, columns.rows),
        eval_side_rows=int((fates.sides[usable] == Side.EVAL).sum()),
        not_drawn=0,
        over_limit=0,
        note="" if not auto else old if terms.eval_size is None else terms.note,
        default_margins=terms.default_margins,
    )


def draw_exam(
    columns: IndexColumns, fates: Fates, policy: SplitPolicy, terms: SplitTerms, exam: Exam
) -> tuple[Array, Array, Exam]:
    """The eval rows in the order they are examined, the chance each had, and the exam with what it left.

    Rows added to rare classes stand last.
    """
    rows = fates.undecided_rows()
    rows = rows[fates.sides[rows] == Side.EVAL]
    too_many = _over_limit(columns, fates, rows, terms.random_seed, exam.max_rows_per_conversation)
    kept = shares_taken(np.unique(fates.clusters[rows], return_inverse=True)[1], np.flatnonzero(~too_many))
    fates.leave_out(rows[too_many], LeftOut.OVER_CONVERSATION_LIMIT)
    rows, kept = rows[~too_many], kept[~too_many]
    order = uniform_hash("draw", terms.random_seed, columns.conversation[rows])
    kinds = columns.kinds[rows]
    added = np.zeros(0, np.int64)
    if exam.draw is Draw.BALANCED:
        drawn = balanced_draw(kinds, order, exam.eval_size, rare=policy.rare_class_rows)
        chances = kept * shares_taken(pool_rare(kinds, policy.rare_class_rows), drawn)
    else:
        about = kinds, columns.kind_names, columns.label[rows], columns.answer_size[rows]
        strata, of_row = np.unique(strata_of(*about, columns.several_turns[rows]), return_inverse=True)
        lots = uniform_hash("rounding", terms.random_seed, strata)
        drawn = proportional_draw(of_row, order, exam.eval_size, lots)
        chances = kept * min(1.0, exam.eval_size / max(1, len(rows)))
        if policy.rare_class_floor:
            classes = np.unique(strata_of(*about, np.zeros(len(rows), bool)), return_inverse=True)[1]
            added = floor_rows(classes, order, drawn, policy.rare_class_floor)
            chances[added] = (kept * shares_taken(classes, np.append(drawn, added)))[added]
    in_order = np.append(drawn[np.argsort(order[drawn], kind="stable")], added[np.argsort(order[added], kind="stable")])
    fates.leave_out(np.delete(rows, in_order), LeftOut.NOT_DRAWN)
    fates.splits[rows[in_order]] = Split.EVAL
    counted = replace(
        exam,
        share_of_records=exam.share_of_records * float(np.mean(~too_many)) if len(too_many) else exam.share_of_records,
        over_limit=int(too_many.sum()),
        not_drawn=len(rows) - len(in_order),
        floor_rows=len(added),
        uneven=exam.draw is Draw.BALANCED and _is_uneven(kinds, drawn),
    )
    return rows[in_order], chances[in_order], counted


def _is_uneven(kinds: Array, drawn: Array) -> bool:
    """Whether rounding alone does not explain how many rows of each class were drawn."""
    held = np.bincount(kinds)
    taken = np.bincount(kinds[drawn], minlength=len(held))
    return bool((np.abs(taken - held * (len(drawn) / max(1, len(kinds)))) >= 1).any())


def _over_limit(columns: IndexColumns, fates: Fates, rows: Array, seed: int, limit: int | None) -> Array:
    """Which of these rows are too many of their conversation, as a mask."""
    if limit is None:
        return np.zeros(len(rows), bool)
    # Not the order of the draw: those a conversation keeps would be likelier to be drawn than others.
    order = uniform_hash("conversation limit", seed, columns.conversation[rows])
    return over_limit(fates.clusters[rows], order, limit)
