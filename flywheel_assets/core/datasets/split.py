"""The split: which records are examined on, trained on, validated on, and why each of the others is in no file.

What belongs here: the policy and the order of its steps, on arrays. What does not: sides (`assignment`), draws (`draw`),
files (`build`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flywheel_assets.core.cleaning import QualityPolicy
from flywheel_assets.core.datasets.assignment import Assignment, KnownKeys, Side, SplitTerms, assign_sides, uniform_hash
from flywheel_assets.core.datasets.draw import balanced_draw, training_window_end
from flywheel_assets.core.datasets.index import Array, codes, conversations, near_keys, numbers, read_dead
from flywheel_assets.core.datasets.manifest import Fates, LeftOut, Split
from flywheel_assets.core.datasets.segments import Segment
from flywheel_assets.core.records import DEFAULT_SOURCE

# An exam never gets more than half of a young workload: the other half must be left to train on.
MAX_EVAL_SHARE = 0.5


class NotEnoughRecords(Exception):
    """A workload has too few usable records for datasets; the message says how many are missing and what to do."""


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """How records become eval, training and validation rows; the fields are those of `split` in flywheel.yaml.

    `eval_share` fixes the share of the eval side at the first build, instead of `eval_size` over the records then seen.
    `train_only_sources`: sources no exam is drawn from; None means every source but `traffic`. `limit` caps the training
    rows (and validation rows in proportion); None means all.
    """

    eval_size: int = 100
    val_ratio: float = 0.1
    min_total_records: int = 50
    limit: int | None = None
    random_seed: int = 0
    strategy: str = "random"
    rare_class_rows: int = 5
    eval_share: float | None = None
    train_only_sources: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class IndexColumns:
    """The columns of a records folder that splitting reads, one value a row; memory is some 60 bytes a row.

    `near` (rows x keys) adds 8 bytes for each key near-duplicates are known by.
    """

    rows: int
    superseded: Array
    duplicates: Array
    supported: Array
    train_only: Array
    conversation: Array
    prompt: Array
    session: Array
    near: Array
    cut_off: Array
    refusal: Array
    feedback: Array
    timestamp: Array
    kinds: Array
    kind_names: list[str]
    source_counts: dict[str, int]
    sources: Array
    source_names: list[str]

    @classmethod
    def read(cls, records: Path, segments: Sequence[Segment], policy: SplitPolicy) -> IndexColumns:
        """Read them from the index."""
        superseded, duplicates = read_dead(records)
        unsupported, unsupported_names = codes(records, segments, "unsupported")
        sources, source_names = codes(records, segments, "source")
        kinds, kind_names = codes(records, segments, "kind")
        train_only = [name for name in source_names if is_train_only(name, policy.train_only_sources)]
        supported = np.isin(unsupported, [code for code, name in enumerate(unsupported_names) if not name])
        return cls(
            rows=len(kinds),
            superseded=superseded,
            duplicates=duplicates,
            supported=supported,
            train_only=np.isin(sources, [source_names.index(name) for name in train_only]),
            conversation=conversations(records, segments),
            prompt=numbers(records, segments, "prompt", np.uint64),
            session=numbers(records, segments, "session", np.uint64),
            near=near_keys(records, segments),
            cut_off=numbers(records, segments, "cut_off", np.bool_),
            refusal=numbers(records, segments, "refusal", np.bool_),
            feedback=numbers(records, segments, "feedback", np.float64),
            timestamp=numbers(records, segments, "timestamp", np.float64),
            kinds=kinds,
            kind_names=kind_names,
            source_counts=dict(zip(source_names, np.bincount(sources, minlength=len(source_names)).tolist(), strict=True)),
            sources=sources,
            source_names=source_names,
        )


@dataclass(frozen=True, slots=True)
class SplitResult:
    """The fate of every row, the eval rows in the order they are examined, and what is remembered for the next build."""

    fates: Fates
    eval_rows: Array
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
) -> SplitResult:
    """Decide on every row. `before` is what the last build remembered, None for a workload's first.

    `quality` says which answers are not used (None: all are). Such rows are not usable, and take no side.

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
    window_end = _narrow_to_window(columns, fates, policy) if policy.strategy == "time" else None
    eval_rows = _draw_eval(columns, fates, policy, terms)
    _split_training_side(columns, fates, policy, terms, rows, assignment)
    notes = tuple(_notes(policy, terms, workload)) if before is not None else ()
    return SplitResult(fates, eval_rows, len(rows), terms, known, window_end, notes)


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
    share = policy.eval_share if policy.eval_share is not None else min(MAX_EVAL_SHARE, policy.eval_size / examinable)
    return SplitTerms(random_seed=policy.random_seed, eval_share=share, fixed_over=examinable)


def _narrow_to_window(columns: IndexColumns, fates: Fates, policy: SplitPolicy) -> float:
    rows = fates.undecided_rows()
    on_eval_side = fates.sides[rows] == Side.EVAL
    end = training_window_end(columns.timestamp[rows[on_eval_side]], policy.eval_size)
    late = columns.timestamp[rows] > end
    fates.leave_out(rows[on_eval_side & ~late], LeftOut.BEFORE_EXAM_WINDOW)
    fates.leave_out(rows[~on_eval_side & late], LeftOut.AFTER_TRAINING_WINDOW)
    return end


def _draw_eval(columns: IndexColumns, fates: Fates, policy: SplitPolicy, terms: SplitTerms) -> Array:
    rows = fates.undecided_rows()
    rows = rows[fates.sides[rows] == Side.EVAL]
    order = uniform_hash("draw", terms.random_seed, columns.conversation[rows])
    drawn = balanced_draw(columns.kinds[rows], order, policy.eval_size, rare=policy.rare_class_rows)
    fates.leave_out(np.delete(rows, drawn), LeftOut.NOT_DRAWN)
    fates.splits[rows[drawn]] = Split.EVAL
    in_order: Array = rows[drawn][np.argsort(order[drawn], kind="stable")]
    return in_order


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


def is_train_only(source: str, train_only: Sequence[str] | None) -> bool:
    """Whether no exam is drawn from a source; `train_only` names those, None: every one but `traffic`."""
    return source != DEFAULT_SOURCE if train_only is None else source in train_only


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
