"""Datasets: from traffic to what a candidate is trained on and examined on.

The work is in `core.datasets`; here it is wired to the trace store and the artifact store.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from typing import Any

import dagster as dg

from flywheel_assets.assets import columns
from flywheel_assets.assets.metadata import IN_SHORT, counts
from flywheel_assets.assets.previews import eval_preview, training_preview
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Refusal, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.core import datasets as core
from flywheel_assets.core import graph
from flywheel_assets.core.rows import Json, WorkloadType
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import cleaning_policy, domain_rules, quality_policy, train_only_sources
from flywheel_assets.resources.sample_plan import exam_planner
from flywheel_assets.resources.trace_stores import UnknownWatermark
from flywheel_assets.settings import Settings

_COMPLETE_ROWS = (
    "Every row is complete and parses. If it fails: the message names the first bad row; materialize the datasets again, "
    "and look at that record if it stays."
)
_ADDED_AT_INGEST = 4096
_QUALITY = {
    "cut_off": "cut off",
    "refusal": "refusals",
    "rated": "with a feedback score",
    "near_records": "near-duplicates",
    "near_clusters": "in clusters",
    "near_largest": "largest cluster",
}


def dataset_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`records`, `datasets/base` and `datasets/train`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.RECORDS,
                description="The workload's records, ready for use: validated, secrets and personal data replaced by "
                "placeholders, duplicates told apart.\n\nWhat was refused is in a quarantine, with a reason for each. "
                "Incremental: only what came after the watermark of the version before is read.",
                kinds=["json", "parquet"],
                metadata=columns.records_table(),
            )
        ],
        check_specs=[
            check_spec(
                "well_formed",
                graph.RECORDS,
                "Segments and index agree, and at most 10% of what came was refused. If it fails: *quarantine* on this page "
                "names the reasons; mend what writes the log (docs/log-schema.md) and ingest again.",
                settings,
            )
        ],
    )
    def records(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.RECORDS], _update_records, {graph.RECORDS: _describe_records})

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.BASE,
                description="The exam: OpenAI requests with the answer that counts as right. Every candidate is asked these "
                "rows and no others.\n\nSides are sticky: a conversation once trained on is never examined on, however the "
                "traffic grows. *left out* says which records are on neither side, and why.",
                kinds=["json", "parquet"],
                metadata=columns.eval_rows_table(),
            ),
            spec(
                settings,
                graph.TRAIN,
                description="What a candidate learns from: training rows, and validation rows that choices may look at "
                "(prompt, completion, tools). `datasets.load_dataset` reads them.\n\nNothing of the exam is in here.",
                kinds=["json", "huggingface"],
                metadata=columns.training_rows_table(),
            ),
        ],
        check_specs=[
            check_spec(
                "enough_records",
                graph.BASE,
                "There are at least split.min_total_records usable records, and rows for both sides. If it fails: ingest "
                "more, or lower that number in flywheel.yaml; `flywheel plan WORKLOAD` says how many a decision needs.",
                settings,
            ),
            check_spec(
                "no_leakage",
                graph.BASE,
                "No conversation, prompt, near-duplicate or cluster is on both sides. If it fails: nothing that was trained "
                "or examined on these rows counts; materialize `datasets/base` and `datasets/train` again, and report it.",
                settings,
            ),
            check_spec("schema_valid", graph.BASE, _COMPLETE_ROWS, settings),
            check_spec("schema_valid", graph.TRAIN, _COMPLETE_ROWS, settings),
        ],
        can_subset=False,
    )
    def datasets(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(
            context,
            flywheel,
            [graph.BASE, graph.TRAIN],
            _build_datasets,
            {graph.BASE: _describe_base, graph.TRAIN: _describe_train},
        )

    return [records, datasets]


def _update_records(work: Work) -> Mapping[str, Outcome]:
    """Read what came after the watermark of the previous version; from the start if the settings changed meaning."""
    flywheel, workload = work.flywheel, work.partition.workload
    until = work.inputs[graph.RECORDS].versions[f"{graph.TRACES}@{workload}"]
    previous = _continuable(work, graph.RECORDS)
    out = work.draft(graph.RECORDS).path
    # A stored body may be a little longer than its line was: ingest adds what the line left out.
    max_bytes = flywheel.settings.local.max_record_bytes + _ADDED_AT_INGEST
    cleaning = cleaning_policy(flywheel.settings, workload)
    try:
        since = None if previous is None else previous.summary["watermark"]
        batches = flywheel.traces.read_after(workload, since, until=until)
        summary = core.update_records(
            previous.path if previous else None, batches, out, max_bytes=max_bytes, cleaning=cleaning
        )
    except UnknownWatermark as error:
        work.context.log.warning(f"{error} Reading the workload from its start.")
        shutil.rmtree(out)
        batches = flywheel.traces.read_after(workload, None, until=until)
        summary = core.update_records(None, batches, out, max_bytes=max_bytes, cleaning=cleaning)
    work.context.log.info(
        f"{summary.records:,} records ({summary.new_rows:,} new, {summary.duplicates:,} duplicates, "
        f"{sum(summary.rejected.values()):,} in quarantine)"
    )
    check = core.check_well_formed(out)
    made = Made(summary.data_version, {**summary.to_json(), "watermark": until})
    return {graph.RECORDS: Outcome(made, [_outcome("well_formed", check)])}


def _build_datasets(work: Work) -> Mapping[str, Outcome]:
    """Split and write. Which side a conversation is on is remembered by the previous version, and never changes."""
    workload = work.partition.workload
    split = work.flywheel.settings.split_for(workload)
    train_only = train_only_sources(work.flywheel.settings, workload)
    base, train = work.draft(graph.BASE).path, work.draft(graph.TRAIN).path
    previous_base, previous_train = work.previous(graph.BASE), work.previous(graph.TRAIN)
    try:
        summary = core.build_datasets(
            work.upstream(graph.RECORDS).path,
            previous_base.path if previous_base else None,
            base,
            train,
            workload=workload,
            policy=core.SplitPolicy(
                eval_size=split.eval_size,
                val_ratio=split.val_ratio,
                min_total_records=split.min_total_records,
                limit=split.limit,
                random_seed=split.random_seed,
                strategy=split.strategy,
                rare_class_rows=split.rare_class_rows,
                eval_share=split.eval_share,
                draw=split.draw,
                max_rows_per_conversation=split.max_rows_per_conversation,
                rare_class_floor=split.rare_class_floor,
                train_only_sources=None if train_only is None else tuple(train_only),
            ),
            quality=quality_policy(work.flywheel.settings, workload),
            domains=domain_rules(work.flywheel.settings, workload),
            previous_train=previous_train.path if previous_train else None,
            plan_exam=exam_planner(
                work.flywheel.settings, workload, WorkloadType(work.upstream(graph.PROFILE).summary["type"])
            ),
        )
    except core.NotEnoughRecords as error:
        raise Refusal(str(error), check=(graph.BASE, "enough_records")) from error
    for note in summary.notes:
        work.context.log.warning(note)
    work.context.log.info(
        f"{summary.eval_rows:,} eval, {summary.train_rows:,} training and {summary.validation_rows:,} validation rows"
    )
    schema = core.check_schema_valid(base, train, previous_train=previous_train.path if previous_train else None)
    content = summary.to_json()
    return {
        graph.BASE: Outcome(
            Made(_examined_as(summary, work), {**content, "name": summary.eval_name}),
            [
                _outcome(
                    "enough_records", core.check_enough_records(base, train, min_total_records=split.min_total_records)
                ),
                _outcome("no_leakage", core.check_no_leakage(base, train, work.upstream(graph.RECORDS).path)),
                _outcome("schema_valid", schema),
            ],
        ),
        graph.TRAIN: Outcome(
            Made(summary.train_version, {**content, "name": summary.train_name}), [_outcome("schema_valid", schema)]
        ),
    }


def _examined_as(summary: core.DatasetsSummary, work: Work) -> str:
    """The eval rows' version with the workload's type and the terms of the exam: rows that are examined as something else
    are scored anew, and a decision must not be taken at looks that no longer hold."""
    kind = work.upstream(graph.PROFILE).summary["type"]
    terms = core.meaning_of(summary.exam)
    drawn_as = f" {json.dumps(terms, sort_keys=True)}" if terms else ""
    return hashlib.sha256(f"{summary.base_version} {kind}{drawn_as}".encode()).hexdigest()[:32]


def _continuable(work: Work, name: str) -> Artifact | None:
    """The previous version, if it was made by the same code with the same settings: then only what is new is read."""
    previous = work.previous(name)
    if previous is None:
        return None
    slice_now = work.flywheel.settings_slice(name, work.partition)
    same = (
        previous.manifest["settings"] == slice_now and previous.manifest["code_version"] == graph.BY_NAME[name].code_version
    )
    return previous if same else None


def _outcome(name: str, check: core.CheckOutcome) -> CheckOutcome:
    return CheckOutcome(name, check.passed, check.message, details=check.details)


def _describe_records(artifact: Artifact) -> Mapping[str, Any]:
    summary = artifact.summary
    refused = sum(summary["rejected"].values())
    return {
        IN_SHORT: f"{summary['records']:,} records, {summary['new_rows']:,} of them new; {refused:,} were refused",
        columns.ROWS: summary["records"],
        columns.URI: artifact.path.as_uri(),
        "new": summary["new_rows"],
        "duplicates": summary["duplicates"],
        "superseded": summary["superseded"],
        "quarantined": refused,
        "values replaced by placeholders": counts(dict(sorted(summary["scrubbed"].items()))),
        "quality": counts({told: summary["quality"][name] for name, told in _QUALITY.items()}),
        "quarantine": counts(dict(sorted(summary["rejected"].items()))),
        "watermark": summary["watermark"],
    }


def _describe_base(artifact: Artifact) -> Mapping[str, Any]:
    summary = artifact.summary
    return {
        IN_SHORT: f"{summary['eval_rows']:,} questions with the answer that counts as right; "
        f"{sum(summary['left_out'].values()):,} records are on neither side",
        columns.ROWS: summary["eval_rows"],
        **eval_preview(artifact.path / "eval_data.jsonl"),
        "classes": counts(summary["eval_classes"]),
        "sources": counts(summary["eval_sources"]),
        "right on whose word": counts(summary["eval_gold"]),
        # Absent from eval rows that earlier versions made.
        "disliked reference answers": summary.get("eval_condemned", 0),
        "suites": "; ".join(f"{suite}: {counts(labels)}" for suite, labels in summary["eval_suites"].items()),
        "left out": counts(dict(sorted(summary["left_out"].items()))),
        **_described_exam(summary.get("exam")),
        "eval share": summary["eval_share"],
        "name": summary["name"],
        columns.URI: (artifact.path / "eval_data.jsonl").as_uri(),
        **columns.eval_rows_lineage(),
    }


def _described_exam(exam: Json | None) -> Mapping[str, Any]:
    """How the rows were drawn; absent from versions made before it was recorded."""
    if exam is None:
        return {}
    planned = "planned when the first dataset was built" if exam["auto"] else "as split.eval_size says"
    limit = exam["max_rows_per_conversation"]
    looks = f"; looks at {', '.join(f'{rows:,}' for rows in exam['looks'])} rows" if exam["looks"] else ""
    return {
        "size of the exam": f"{exam['eval_size']:,} rows at most, {planned}{looks}. {exam['note']}".strip(),
        "drawn": f"{exam['draw']}, {'any number of' if limit is None else f'at most {limit}'} rows of one conversation",
        "unused on the eval side": f"{exam['not_drawn']:,} of {exam['eval_side_rows']:,} rows that a larger "
        f"split.eval_size would draw, {exam['over_limit']:,} beyond the limit per conversation",
    }


def _describe_train(artifact: Artifact) -> Mapping[str, Any]:
    summary = artifact.summary
    first = next(iter(core.training_files(artifact.path, "train")), artifact.path / "train")
    return {
        IN_SHORT: f"{summary['train_rows']:,} training rows, and {summary['validation_rows']:,} validation rows that "
        "choices may look at",
        columns.ROWS: summary["train_rows"],
        "validation rows": summary["validation_rows"],
        "classes": counts(summary["train_classes"]),
        **training_preview(first),
        "name": summary["name"],
        columns.URI: (artifact.path / "train").as_uri(),
        **columns.training_rows_lineage(),
    }
