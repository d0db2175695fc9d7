"""Evaluation: every variant of a candidate is asked the same questions, on the same engine, and scored."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.context import prefix_messages
from flywheel_assets.assets.metadata import bullet_table, example_table, score_history, score_table
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.assets.training import adapter_of, skipped, trained_row_ids
from flywheel_assets.core import graph
from flywheel_assets.core.costs import cost_per_1k
from flywheel_assets.core.datasets import iter_training_rows, read_eval_rows
from flywheel_assets.core.metrics import MAIN_METRIC, installed_versions, metrics_for, score_rows
from flywheel_assets.core.predictions import EvalReport, build_report, data_version, write_predictions
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, Variant, WorkloadType
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import token_prices
from flywheel_assets.resources.platform import Platform
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.settings import Settings

PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.json"
# A person watching wants to see it move; the event log does not want a row a question.
PROGRESS_EVERY_S = 3.0
_EXAMPLES = 8

_DESCRIPTIONS = {
    Variant.BASE: "The candidate as it is, on the eval rows.",
    Variant.PREFIXED: "The candidate with the few-shot prefix: what tuning must beat.",
    Variant.CUSTOMIZED: "The candidate with its adapter.",
}


def evaluation_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`evals/validation`, `evals/base`, `evals/prefixed` and `evals/customized`."""
    return [_validation_asset(settings), *(_variant_asset(settings, variant) for variant in Variant)]


def _variant_asset(settings: Settings, variant: Variant) -> dg.AssetsDefinition:
    name = graph.EVALS[variant]
    checks = [check_spec("complete", name, "At most evaluation.max_error_share of the rows errored.", settings)]
    if variant is Variant.CUSTOMIZED:
        checks += [
            check_spec("unseen_in_training", name, "No eval row's conversation was trained on.", settings),
            check_spec("served_matches_trained", name, "The server ran the adapter and template of the training.", settings),
        ]

    @dg.multi_asset(
        name=f"evals_{variant}",
        specs=[
            spec(
                settings,
                name,
                description=f"{_DESCRIPTIONS[variant]} Report and per-row predictions.",
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

        yield from publish(context, flywheel, [name], examine, {name: lambda artifact: _describe(flywheel, artifact)})

    return evaluation


def _validation_asset(settings: Settings) -> dg.AssetsDefinition:
    name = graph.VALIDATION_EVAL

    @dg.multi_asset(
        name="evals_validation",
        specs=[
            spec(
                settings,
                name,
                description="The base model on validation rows: what a choice may look at. Made only where finetune.mode "
                "is `if_needed`.",
                kinds=["parquet", "openai"],
            )
        ],
        check_specs=[check_spec("complete", name, "At most evaluation.max_error_share of the rows errored.", settings)],
    )
    def evals_validation(
        context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel], platform: dg.ResourceParam[Platform]
    ) -> Events:
        def examine(work: Work) -> Mapping[str, Outcome]:
            train = work.upstream(graph.TRAIN)
            rows = [_as_eval_row(row) for row in iter_training_rows(train.path, "validation")]
            kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
            return _examine(work, platform, name, rows, kind, Variant.BASE)

        yield from publish(context, flywheel, [name], examine, {name: lambda artifact: _describe(flywheel, artifact)})

    return evals_validation


def _examine_variant(work: Work, platform: Platform, variant: Variant) -> Mapping[str, Outcome]:
    name = graph.EVALS[variant]
    base = work.upstream(graph.BASE)
    rows = read_eval_rows(base.path)
    kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
    if variant is not Variant.CUSTOMIZED:
        prefix = prefix_messages(work.upstream(graph.PREFIX)) if variant is Variant.PREFIXED else []
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
) -> Mapping[str, Outcome]:
    """Ask, score, write predictions and report; the checks say whether the result may count as evidence."""
    settings = work.flywheel.settings
    evaluation = settings.evaluation_for(work.partition.workload)
    candidate = settings.candidate(work.partition.candidate)
    tuned = None if adapter is None else adapter_of(adapter)
    # Before anything is asked: a metric of another package that cannot be used must not be found out at the end.
    definitions = {metric.name: metric.definition for metric in metrics_for(kind)}
    work.context.log.info(f"{variant}: starting {candidate.id} for {len(rows)} rows")
    started = time.time()
    with platform.deployed(candidate, adapter=tuned, owner=work.context.run_id) as endpoint:
        if adapter is not None and not endpoint.can_load_adapter:
            return skipped(work, name, f"the endpoint of '{candidate.id}' cannot load our adapter")
        predictions = platform.ask(
            endpoint, rows, variant=variant, prefix=prefix, settings=evaluation, progress=_reporter(work, variant)
        )
        served = _what_was_served(endpoint)
        asked = (started, time.time())
    scores = score_rows(kind, rows, predictions)
    cost = cost_per_1k(predictions, token_prices(settings).get(candidate.id))
    report = build_report(kind, rows, predictions, scores, cost_per_1k_usd=cost)
    draft = work.draft(name).path
    write_predictions(draft / PREDICTIONS_FILE, kind, rows, predictions, scores)
    (draft / REPORT_FILE).write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    # Not orjson: a model can write half a surrogate pair, which is no UTF-8.
    (draft / "examples.json").write_text(json.dumps(_examples(rows, predictions), indent=1), encoding="utf-8")
    checks = [_complete(report, predictions, evaluation.max_error_share)]
    if adapter is not None:
        checks += [_unseen(adapter, rows), _served_matches_trained(adapter, served)]
    failed = next((check for check in checks if not check.passed), None)
    summary = {
        **report.to_status(),
        "errors": report.errors,
        "tokens": report.tokens,
        "reused_from_cache": sum(prediction.cached for prediction in predictions),
        "served": served,
        "definitions": definitions,
        # When the model was loaded and asked (epoch seconds): what is left of the wall time is orchestration.
        "model_busy": asked,
    }
    del summary["state"], summary["reason"]
    made = Made(
        data_version=data_version(rows, predictions, installed_versions()),
        summary=summary,
        state="failed" if failed else "ok",
        reason=failed.message if failed else None,
    )
    return {name: Outcome(made, checks)}


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


def _reporter(work: Work, variant: Variant) -> Any:
    """Progress into the run's log, at most every few seconds."""
    last = 0.0

    def report(done: int, total: int, cached: int, errors: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < PROGRESS_EVERY_S:
            return
        last = now
        trouble = f", {errors} errors" if errors else ""
        work.context.log.info(f"{variant}: {done}/{total} rows, {cached} from the cache{trouble}")

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


def _examples(rows: Sequence[EvalRow], predictions: Sequence[Prediction]) -> list[Json]:
    """A few questions with the expected and the given answer, for the UI."""
    return [
        {
            "question": str(row.request["messages"][-1].get("content"))[:300],
            "expected": row.reference.to_json(),
            "answered": prediction.answer.to_json() if prediction.answer else None,
            "error": prediction.error,
        }
        for row, prediction in list(zip(rows, predictions, strict=True))[:_EXAMPLES]
    ]


def _suite_table(report: EvalReport) -> dg.MarkdownMetadataValue:
    """The workload's main metric by suite and label."""
    metric = MAIN_METRIC[report.workload_type]
    rows = []
    for suite, labels in report.suites.items():
        for label, found in labels.items():
            score = found.scores.get(metric)
            shown = [score.value, f"[{score.low:.3f}, {score.high:.3f}]"] if score else ["", ""]
            rows.append([suite, label, *shown, found.n])
    return bullet_table(["suite", "label", metric, "95% interval", "rows"], rows)


def _describe(flywheel: Flywheel, artifact: Artifact) -> Mapping[str, Any]:
    if artifact.state == "skipped":
        return {}
    summary = artifact.summary
    plotted = {metric: score["value"] for metric, score in summary["scores"].items()}
    return {
        "rows": summary["n"],
        "errors": summary["errors"],
        "reused from the cache": summary["reused_from_cache"],
        "scores": score_table(summary["scores"]),
        "aggregates": score_table(summary["aggregates"]),
        "suites": _suite_table(EvalReport.from_json(orjson.loads((artifact.path / REPORT_FILE).read_bytes()))),
        "metrics": bullet_table(["metric", "definition"], list(summary["definitions"].items())),
        "latency p50 ms": summary["latency_ms"]["p50"] or 0.0,
        "engine": summary["served"]["engine"],
        "examples": example_table(json.loads((artifact.path / "examples.json").read_text(encoding="utf-8"))),
        "over time": score_history(flywheel.artifacts.history(artifact.asset, artifact.partition)),
        # One number a metric, so that Dagster plots them over materializations.
        **plotted,
    }
