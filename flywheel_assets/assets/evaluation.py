"""Evaluation: every variant of a candidate is asked the same questions, on the same engine, and scored."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.evaluation_page import (
    EXAMPLES_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    describe_evaluation,
    examples_json,
)
from flywheel_assets.assets.judging import judge_bench, judge_checks
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Refusal, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.assets.training import adapter_of, skipped, trained_row_ids
from flywheel_assets.core import graph
from flywheel_assets.core.costs import cost_per_1k
from flywheel_assets.core.datasets import iter_training_rows, read_eval_rows
from flywheel_assets.core.metrics import installed_versions, metrics_for, score_rows
from flywheel_assets.core.predictions import EvalReport, build_report, data_version, write_predictions
from flywheel_assets.core.prefix import read_prefix
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, Variant, WorkloadType
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.asking import TooManyErrors
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import TEACHER_ID, teacher_candidate, token_prices
from flywheel_assets.resources.platform import Adapter, Platform
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.settings import Candidate, Settings

# A person watching wants to see it move; the event log does not want a row a question.
PROGRESS_EVERY_S = 3.0

_WHAT_IS_SHOWN = (
    "\n\nScores with 95% intervals, by suite too; a few answers; `predictions.parquet` has every one of them. Answers that "
    "were given before for the same question, model and settings come from the cache."
)
_COMPLETE = (
    "At most evaluation.max_error_share of the rows have no answer. If it fails: the message has the first error; look at "
    "the endpoint or server, then materialize this again: what was answered is not asked again."
)
_DESCRIPTIONS = {
    Variant.BASE: "The candidate as it is, asked every eval row.",
    Variant.PREFIXED: "The candidate with the few-shot prefix before each request: what tuning must beat.",
    Variant.CUSTOMIZED: "The candidate with its adapter, asked every eval row.",
}


def evaluation_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`evals/validation`, `evals/base`, `evals/prefixed`, `evals/customized` and `evals/teacher`."""
    variants = [_variant_asset(settings, variant) for variant in Variant]
    return [_validation_asset(settings), *variants, _teacher_asset(settings)]


def _variant_asset(settings: Settings, variant: Variant) -> dg.AssetsDefinition:
    name = graph.EVALS[variant]
    checks = [
        check_spec("complete", name, _COMPLETE, settings),
        *judge_checks(settings, name),
    ]
    if variant is Variant.CUSTOMIZED:
        checks += [
            check_spec(
                "unseen_in_training",
                name,
                "No eval row was trained on. If it fails: the score means nothing; materialize `adapter` again, which "
                "trains on today's rows.",
                settings,
            ),
            check_spec(
                "served_matches_trained",
                name,
                "The server ran the adapter and the chat template of the training. If it fails: other weights were "
                "examined; materialize `adapter` again, then this.",
                settings,
            ),
        ]

    @dg.multi_asset(
        name=f"evals_{variant}",
        specs=[
            spec(
                settings,
                name,
                description=f"{_DESCRIPTIONS[variant]}{_WHAT_IS_SHOWN}",
                kinds=["parquet", "openai"],
            )
        ],
        check_specs=checks,
    )
    def evaluation(
        context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel], platform: dg.ResourceParam[Platform]
    ) -> Events:
        def examine(work: Work) -> Mapping[str, Outcome]:
            return _examine_variant(work, platform, variant)

        yield from publish(context, flywheel, [name], examine, {name: partial(describe_evaluation, flywheel)})

    return evaluation


def _validation_asset(settings: Settings) -> dg.AssetsDefinition:
    name = graph.VALIDATION_EVAL

    @dg.multi_asset(
        name="evals_validation",
        specs=[
            spec(
                settings,
                name,
                description="The candidate as it is, on validation rows: what the choice whether to fine-tune may look at. "
                f"Made only where finetune.mode is `if_needed`.{_WHAT_IS_SHOWN}",
                kinds=["parquet", "openai"],
            )
        ],
        check_specs=[
            check_spec("complete", name, _COMPLETE, settings),
            *judge_checks(settings, name),
        ],
    )
    def evals_validation(
        context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel], platform: dg.ResourceParam[Platform]
    ) -> Events:
        def examine(work: Work) -> Mapping[str, Outcome]:
            train = work.upstream(graph.TRAIN)
            rows = [_as_eval_row(row) for row in iter_training_rows(train.path, "validation")]
            kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
            return _examine(work, platform, name, rows, kind, Variant.BASE)

        yield from publish(context, flywheel, [name], examine, {name: partial(describe_evaluation, flywheel)})

    return evals_validation


def _teacher_asset(settings: Settings) -> dg.AssetsDefinition:
    name = graph.TEACHER_EVAL

    @dg.multi_asset(
        name="evals_teacher",
        specs=[
            spec(
                settings,
                name,
                description="The teacher, asked the eval rows once more as it was asked then: how often it agrees with "
                "itself is the ceiling for everybody else. Made only where `teacher.model` names its endpoint."
                f"{_WHAT_IS_SHOWN}",
                kinds=["parquet", "openai"],
            )
        ],
        check_specs=[
            check_spec("complete", name, _COMPLETE, settings),
            *judge_checks(settings, name),
        ],
    )
    def evals_teacher(
        context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel], platform: dg.ResourceParam[Platform]
    ) -> Events:
        def examine(work: Work) -> Mapping[str, Outcome]:
            teacher = teacher_candidate(work.flywheel.settings, work.partition.workload)
            if teacher is None:
                raise Refusal(
                    f"workload '{work.partition.workload}': `teacher.model` in flywheel.yaml names no endpoint to ask."
                )
            rows = read_eval_rows(work.upstream(graph.BASE).path)
            kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
            return _examine(work, platform, name, rows, kind, Variant.BASE, teacher=teacher)

        yield from publish(context, flywheel, [name], examine, {name: partial(describe_evaluation, flywheel)})

    return evals_teacher


def _examine_variant(work: Work, platform: Platform, variant: Variant) -> Mapping[str, Outcome]:
    name = graph.EVALS[variant]
    base = work.upstream(graph.BASE)
    rows = read_eval_rows(base.path)
    kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
    if variant is not Variant.CUSTOMIZED:
        prefix = read_prefix(work.upstream(graph.PREFIX).path) if variant is Variant.PREFIXED else []
        return _examine(work, platform, name, rows, kind, variant, prefix=prefix)
    adapter = work.upstream(graph.ADAPTER)
    if adapter.state == "skipped":
        return skipped(work, name, adapter.reason or "no adapter")
    if adapter_of(adapter) is None:
        return skipped(work, name, f"llama.cpp cannot load this adapter: {adapter.summary['gguf_reason']}")
    return _examine(work, platform, name, rows, kind, variant, adapter=adapter)


def _examine(
    work: Work,
    platform: Platform,
    name: str,
    rows: Sequence[EvalRow],
    kind: WorkloadType,
    variant: Variant,
    *,
    prefix: Sequence[Json] = (),
    adapter: Artifact | None = None,
    teacher: Candidate | None = None,
) -> Mapping[str, Outcome]:
    """Ask, score, write predictions and report; the checks say whether the result may count as evidence.

    Asked is the candidate of the cell, or the `teacher`, which is sampled once more instead of decoded greedily.
    """
    settings = work.flywheel.settings
    evaluation = settings.evaluation_for(work.partition.workload)
    candidate = teacher or settings.candidate(work.partition.candidate)
    who = TEACHER_ID if teacher else variant
    tuned = None if adapter is None else adapter_of(adapter)
    # Before anything is asked: a metric of another package or a judge that cannot be used must not be found out at the end.
    definitions = {metric.name: metric.definition for metric in metrics_for(kind)}
    bench = judge_bench(work, name, kind)
    work.context.log.info(f"{who}: starting {candidate.id} for {len(rows)} rows")
    started = time.time()
    with _deployed(work, platform, candidate, tuned) as endpoint:
        if adapter is not None and not endpoint.can_load_adapter:
            return skipped(work, name, f"the endpoint of '{candidate.id}' cannot load our adapter")
        endpoint = replace(endpoint, again=work.flywheel.again.of(name, work.partition))
        try:
            with work.watch.span("asking"):
                predictions = platform.ask(
                    endpoint,
                    rows,
                    variant=variant,
                    prefix=prefix,
                    settings=evaluation,
                    progress=_reporter(work, who),
                    sample=1 if teacher else 0,
                )
        except TooManyErrors as error:
            raise Refusal(str(error), check=(name, "complete")) from error
        served = _what_was_served(endpoint)
        asked = (started, time.time())
    # Only now, with the candidate given back: the GPU budget need not hold a local judge beside it.
    judged = bench.judge(work, platform, rows, predictions)
    scores = {**score_rows(kind, rows, predictions), **judged.columns}
    cost = cost_per_1k(predictions, token_prices(settings).get((teacher and teacher.model_name) or candidate.id))
    report = build_report(kind, rows, predictions, scores, cost_per_1k_usd=cost)
    report = replace(report, aggregates={**report.aggregates, **judged.aggregates})
    draft = work.draft(name).path
    write_predictions(draft / PREDICTIONS_FILE, kind, rows, predictions, scores)
    (draft / REPORT_FILE).write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    (draft / EXAMPLES_FILE).write_text(examples_json(rows, predictions), encoding="utf-8")
    checks = [_complete(report, predictions, evaluation.max_error_share), *bench.checks(judged)]
    if adapter is not None:
        checks += [_unseen(adapter, rows), _served_matches_trained(adapter, served)]
    failed = next((check for check in checks if not check.passed), None)
    summary = {
        **report.to_status(),
        "errors": report.errors,
        "tokens": report.tokens,
        "reused_from_cache": sum(prediction.cached for prediction in predictions),
        "served": served,
        "definitions": {**definitions, **bench.definitions},
        "judge": bench.summary,
        # When the model was loaded and asked (epoch seconds): what is left of the wall time is orchestration.
        "model_busy": asked,
    }
    del summary["state"], summary["reason"]
    made = Made(
        data_version=data_version(rows, predictions, installed_versions(), bench.meaning(judged)),
        summary=summary,
        state="failed" if failed else "ok",
        reason=failed.message if failed else None,
    )
    return {name: Outcome(made, checks)}


@contextmanager
def _deployed(work: Work, platform: Platform, candidate: Candidate, adapter: Adapter | None) -> Iterator[Endpoint]:
    """The candidate's endpoint, with the time it took to get ready told as a part of the phase."""
    with ExitStack() as held:
        with work.watch.span("deploying"):
            endpoint = held.enter_context(platform.deployed(candidate, adapter=adapter, owner=work.context.run_id))
        yield endpoint


def _what_was_served(endpoint: Endpoint) -> Json:
    """What answered: compared with what was trained, and kept with the report."""
    return {
        "model": endpoint.model,
        "engine": endpoint.engine_build,
        "model_identity": endpoint.model_identity,
        "template_identity": endpoint.template_identity,
        "adapter_identity": endpoint.adapter_identity,
        **({"remarks": dict(endpoint.remarks)} if endpoint.remarks else {}),
    }


def _reporter(work: Work, who: str) -> Any:
    """Progress into the run's log, at most every few seconds."""
    last = 0.0

    def report(done: int, total: int, cached: int, errors: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < PROGRESS_EVERY_S:
            return
        last = now
        trouble = f", {errors} errors" if errors else ""
        work.context.log.info(f"{who}: {done}/{total} rows, {cached} from the cache{trouble}")

    return report


def _complete(report: EvalReport, predictions: Sequence[Prediction], accepted: float) -> CheckOutcome:
    first = next((prediction.error for prediction in predictions if prediction.error), None)
    message = f"{report.errors} of {report.n} rows errored ({accepted:.0%} is accepted)"
    message += f"; the first: {first}. Look at the endpoint, then run it again." if first else "."
    return CheckOutcome("complete", bool(report.n) and report.error_share <= accepted, message)


def _unseen(adapter: Artifact, rows: Sequence[EvalRow]) -> CheckOutcome:
    """Against the rows the adapter was really trained on, which may be of an older dataset version."""
    seen = trained_row_ids(adapter)
    both = [row.row_id for row in rows if row.row_id in seen]
    message = f"{len(both)} of {len(rows)} eval rows are among the {len(seen)} rows the adapter was trained on."
    message += " Materialize the adapter again." if both else ""
    return CheckOutcome("unseen_in_training", not both, message, details={"rows": both[:20]})


def _served_matches_trained(adapter: Artifact, served: Json) -> CheckOutcome:
    expected = {
        "adapter_identity": adapter.summary.get("remote_model") or adapter.summary["gguf_sha256"],
        "template_identity": adapter.summary["template_sha256"],
    }
    wrong = [key for key, value in expected.items() if served[key] != value]
    message = (
        "The server ran the adapter and chat template of the training."
        if not wrong
        else (
            f"The server ran something else than what was trained: {', '.join(wrong)} differ. Materialize the adapter again."
        )
    )
    return CheckOutcome("served_matches_trained", not wrong, message, details={"served": served, "trained": expected})


def _as_eval_row(row: Json) -> EvalRow:
    """A validation row as a question: what precedes the completion, and the completion as reference."""
    tools = orjson.loads(row["tools"]) if row.get("tools") else []
    request: Json = {"messages": row["prompt"], **({"tools": tools} if tools else {})}
    return EvalRow(
        row_id=row["row_id"],
        trace_id=row["row_id"],
        cluster=row["row_id"],
        request=request,
        reference=Answer.from_message(row["completion"][0]),
        suite_turns="single_turn",
    )
