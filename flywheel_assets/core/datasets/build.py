"""From a version of the records to the eval rows and the training rows of a workload.

What belongs here: the order of the steps, and the summary of what came out. What does not: every step itself (`split`,
`eval_file`, `training_shards`, `manifest`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from flywheel_assets.core.cleaning import QualityPolicy
from flywheel_assets.core.datasets.assignment import read_split, write_split
from flywheel_assets.core.datasets.columns import IndexColumns
from flywheel_assets.core.datasets.eval_file import write_eval_file
from flywheel_assets.core.datasets.exam import PlanExam, plain_plan
from flywheel_assets.core.datasets.manifest import Split, write_rows
from flywheel_assets.core.datasets.policy import SplitPolicy
from flywheel_assets.core.datasets.segments import read_summary
from flywheel_assets.core.datasets.split import SplitResult, split_rows
from flywheel_assets.core.datasets.training_shards import write_training_files
from flywheel_assets.core.rows import Json
from flywheel_assets.core.suites import DomainRule

# Classes shown in a summary; a workload may have thousands of tools.
_SHOWN_CLASSES = 50


@dataclass(frozen=True, slots=True)
class DatasetsSummary:
    """What a build made of a workload's records.

    `usable` records are neither dead nor unsupported nor left out for their quality. `left_out` counts by reason, over all
    records. `random_seed` and `eval_share` are those in force since the first build; `notes` say where the settings now
    differ. `exam` is an `exam.Exam` as JSON. `eval_classes` and `train_classes` count rows by class, the 50 largest;
    `eval_sources` counts eval rows by source, `eval_suites` by suite and label, `eval_gold` by whose word their answer is
    right on (`gold`); `eval_condemned` of them are examined against an answer that somebody disliked.
    `training_window_end` (epoch seconds): strategy `time` only.
    """

    workload: str
    usable: int
    eval_rows: int
    train_rows: int
    validation_rows: int
    left_out: dict[str, int]
    eval_classes: dict[str, int]
    train_classes: dict[str, int]
    eval_sources: dict[str, int]
    eval_suites: dict[str, dict[str, int]]
    eval_gold: dict[str, int]
    eval_condemned: int
    random_seed: int
    eval_share: float
    exam: Json
    training_window_end: float | None
    shards_reused: int
    shards_written: int
    base_version: str
    train_version: str
    notes: tuple[str, ...]

    @property
    def eval_name(self) -> str:
        """The name the eval rows are published under."""
        return eval_dataset_name(self.workload, self.base_version)

    @property
    def train_name(self) -> str:
        """The name the training rows are published under."""
        return train_dataset_name(self.workload, self.train_version)

    def to_json(self) -> Json:
        """JSON-ready."""
        return {**asdict(self), "eval_name": self.eval_name, "train_name": self.train_name}


def build_datasets(
    records: Path,
    previous: Path | None,
    base_out: Path,
    train_out: Path,
    *,
    workload: str,
    policy: SplitPolicy,
    quality: QualityPolicy | None = None,
    domains: Sequence[DomainRule] = (),
    previous_train: Path | None = None,
    workers: int | None = None,
    plan_exam: PlanExam = plain_plan,
) -> DatasetsSummary:
    """Write a workload's eval rows into `base_out` and its training rows into `train_out` (empty or absent folders).

    `previous` is the last version of the base folder: it remembers which side every conversation is on, and must be given
    whenever there is one. `previous_train` is the last version of the training folder; unchanged files are linked from
    it. `quality` says which answers are in no file (None: all are used), `domains` how eval rows are labelled,
    `plan_exam` how large an exam is that the policy leaves open. Raises NotEnoughRecords, before anything is written.
    """
    summary = read_summary(records)
    columns = IndexColumns.read(records, summary.segments, policy)
    before = read_split(previous) if previous is not None else None
    result = split_rows(columns, policy, before, workload, quality, plan_exam)
    for folder in (base_out, train_out):
        folder.mkdir(parents=True, exist_ok=True)
    write_split(base_out, result.terms, result.known)
    clusters = result.fates.clusters[result.eval_rows]
    eval_file = write_eval_file(
        base_out,
        previous,
        records,
        summary.segments,
        result.eval_rows,
        clusters,
        result.chances,
        domains,
        min_feedback=None if quality is None else quality.min_feedback,
        added=result.exam.floor_rows,
    )
    write_rows(base_out, records, summary.segments, result.fates)
    files = write_training_files(train_out, previous_train, records, summary.segments, result.fates, workers=workers)
    return DatasetsSummary(
        workload=workload,
        usable=result.usable,
        eval_rows=len(result.eval_rows),
        train_rows=files.train_rows,
        validation_rows=files.validation_rows,
        left_out=result.fates.left_out(),
        eval_classes=_classes(columns, result, Split.EVAL),
        train_classes=_classes(columns, result, Split.TRAIN),
        eval_sources=_eval_sources(columns, result),
        eval_suites=eval_file.suites,
        eval_gold=eval_file.gold,
        eval_condemned=eval_file.condemned,
        random_seed=result.terms.random_seed,
        eval_share=result.terms.eval_share,
        exam=result.exam.to_json(),
        training_window_end=result.window_end,
        shards_reused=files.shards_reused,
        shards_written=files.shards_written,
        base_version=eval_file.data_version,
        train_version=files.data_version,
        notes=result.notes,
    )


def eval_dataset_name(workload: str, version: str) -> str:
    """The name of a version of the eval rows."""
    return f"flywheel-eval-{workload}-{version}"


def train_dataset_name(workload: str, version: str) -> str:
    """The name of a version of the training rows."""
    return f"flywheel-train-{workload}-{version}"


def _classes(columns: IndexColumns, result: SplitResult, split: Split) -> dict[str, int]:
    counts = np.bincount(columns.kinds[result.fates.splits == split], minlength=len(columns.kind_names))
    named = Counter({name: int(count) for name, count in zip(columns.kind_names, counts, strict=True) if count})
    return dict(named.most_common(_SHOWN_CLASSES))


def _eval_sources(columns: IndexColumns, result: SplitResult) -> dict[str, int]:
    counts = np.bincount(columns.sources[result.eval_rows], minlength=len(columns.source_names)).tolist()
    return {name: count for name, count in zip(columns.source_names, counts, strict=True) if count}
