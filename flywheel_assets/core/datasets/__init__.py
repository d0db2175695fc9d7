"""Datasets: from stored records to eval rows and training rows that never leak into each other.

What belongs here: pure functions on plain folders: `update_records`, `profile_workload`, `build_datasets`, readers and
checks. What does not: where records come from, how folders are published, Dagster.

The steps, a module each: `update` (validate, append) over `segments`, `index`, `appending` and `workers`; `profile`;
`split` over `assignment` (sides, for ever) and `exam_draw` (`strata`, `draw`); `build` over `eval_file`,
`training_shards` and `manifest`.
"""

from flywheel_assets.core.datasets.build import DatasetsSummary, build_datasets, eval_dataset_name, train_dataset_name
from flywheel_assets.core.datasets.checks import (
    CheckOutcome,
    check_enough_records,
    check_no_leakage,
    check_schema_valid,
    check_well_formed,
)
from flywheel_assets.core.datasets.exam import Draw, Exam, ExamFacts, ExamPlan, PlanExam, meaning_of
from flywheel_assets.core.datasets.policy import SplitPolicy
from flywheel_assets.core.datasets.profile import UNSUPPORTED, WorkloadProfile, profile_workload
from flywheel_assets.core.datasets.readers import iter_training_rows, read_eval_rows, training_files
from flywheel_assets.core.datasets.segments import RecordsSummary, read_summary
from flywheel_assets.core.datasets.split import NotEnoughRecords
from flywheel_assets.core.datasets.update import update_records

__all__ = [
    "UNSUPPORTED",
    "CheckOutcome",
    "DatasetsSummary",
    "Draw",
    "Exam",
    "ExamFacts",
    "ExamPlan",
    "NotEnoughRecords",
    "PlanExam",
    "RecordsSummary",
    "SplitPolicy",
    "WorkloadProfile",
    "build_datasets",
    "check_enough_records",
    "check_no_leakage",
    "check_schema_valid",
    "check_well_formed",
    "eval_dataset_name",
    "iter_training_rows",
    "meaning_of",
    "profile_workload",
    "read_eval_rows",
    "read_summary",
    "train_dataset_name",
    "training_files",
    "update_records",
]
