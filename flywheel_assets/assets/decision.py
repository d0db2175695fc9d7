"""Decision: everything evaluated beside each other, and the verdict with its evidence."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets import columns
from flywheel_assets.assets.evaluation_page import PREDICTIONS_FILE, REPORT_FILE
from flywheel_assets.assets.metadata import IN_SHORT, bullet_table, bullets, counts, drawing, picture
from flywheel_assets.assets.previews import report_text
from flywheel_assets.assets.profile import PROFILE_FILE
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Refusal, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.core import graph
from flywheel_assets.core.cleaning.mask import masked_text
from flywheel_assets.core.comparison import ArmResult, Comparison, compare
from flywheel_assets.core.comparison_tables import tables_of
from flywheel_assets.core.costs import TokenPrice, full_price_note, teacher_cost_per_1k, teacher_full_price_notes
from flywheel_assets.core.datasets import read_eval_rows
from flywheel_assets.core.decisions import Decision, InvalidEvidence, InvalidGate, Verdict, decide, look_taken
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.looks import counted, last_start, schedule_of
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.planner import every_failure, plan
from flywheel_assets.core.plots import leaderboard_png, suites_png
from flywheel_assets.core.predictions import EvalReport, ScoredPredictions, read_predictions
from flywheel_assets.core.report import (
    Losses,
    arm_in_focus,
    gated_metrics,
    losses_of,
    report_of,
    to_html,
    to_markdown,
    to_svg,
)
from flywheel_assets.core.report.scatter import cost_against_quality
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.resources.again import AGAIN
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import registered_gates, token_prices, wanted
from flywheel_assets.resources.judge.choice import judge_columns
from flywheel_assets.resources.lag import TRAFFIC_READ_AT
from flywheel_assets.seals import require_untouched
from flywheel_assets.settings import Settings

COMPARISON_FILE = "comparison.json"
LEADERBOARD_FILE = "leaderboard.csv"
DECISION_FILE = "decision.json"
# One file a person opens in a browser, or sends to somebody who has no access to anything here.
HTML_REPORT = "report.html"
LEADERBOARD_PICTURE, SUITES_PICTURE, COST_PICTURE = PICTURES = ("leaderboard.png", "suites.png", "cost.svg")


def decision_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`comparison` and `decision`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.COMPARISON,
                description="Every candidate in every variant beside the teacher: scores with intervals, by suite, latency "
                "and cost, on the same rows.\n\nMade once every cell has ended, well or badly; *holes* says what is missing "
                "and why. `report.html` in the folder has all of it for people without access to this page.",
                kinds=["csv", "html"],
            )
        ]
    )
    def comparison(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.COMPARISON], _compare, {graph.COMPARISON: _describe_comparison})

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.DECISION,
                description="May a small model replace the teacher? `promote`: yes, that one. `keep`: no, shown to miss a "
                "gate. `inconclusive`: more rows are needed, and how many.\n\nFrom paired tests against gates registered in "
                "flywheel.yaml before anybody looked (docs/decisions.md). Nothing is switched by it: a person approves, "
                "with the job `promote` or `flywheel approve`.",
                kinds=["json", "html"],
            )
        ],
        check_specs=[
            check_spec(
                "gates",
                graph.DECISION,
                "The evidence is sound; `keep` and `inconclusive` are sound verdicts too. If it fails: the message says "
                "which part of the evidence or of `decision.gates` contradicts itself. Mend that; nothing is decided "
                "meanwhile.",
                settings,
            )
        ],
    )
    def decision(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.DECISION], _decide, {graph.DECISION: _describe_decision})

    return [comparison, decision]


def _compare(work: Work) -> Mapping[str, Outcome]:
    workload = work.partition.workload
    base = work.trusted(graph.BASE)
    kind = WorkloadType(work.upstream(graph.PROFILE).summary["type"])
    rows = read_eval_rows(base.path)
    profile = orjson.loads((work.upstream(graph.PROFILE).path / PROFILE_FILE).read_bytes())
    prices = token_prices(work.flywheel.settings)
    arms = list(_arms(work, workload))
    compared = compare(
        workload,
        kind,
        rows,
        arms,
        dataset_version=base.version,
        dataset_meaning=base.data_version,
        eval_sources=base.summary["eval_sources"],
        notes=[*teacher_full_price_notes(profile, prices), *_full_price_notes(arms, prices)],
        reference_cost_per_1k_usd=teacher_cost_per_1k(profile, prices),
        # Absent from profiles and eval rows that earlier versions made.
        reference_latency_ms=profile.get("latency_ms"),
        condemned=base.summary.get("eval_condemned", 0),
        teacher=_teacher_again(work),
        judged=judge_columns(work.flywheel.settings, workload, kind),
        # Absent from datasets made before it was recorded.
        exam=base.summary.get("exam"),
    )
    draft = work.draft(graph.COMPARISON).path
    (draft / COMPARISON_FILE).write_bytes(orjson.dumps(compared.to_json()))
    (draft / LEADERBOARD_FILE).write_text(compared.to_csv(), encoding="utf-8")
    for name, table in tables_of(compared).items():
        (draft / name).write_text(table, encoding="utf-8")
    _draw(compared, draft)
    (draft / "report.md").write_text(to_markdown(compared), encoding="utf-8")
    (draft / HTML_REPORT).write_text(to_html(report_of(compared)), encoding="utf-8")
    summary = {"arms": len(compared.arms), "evaluated": len(compared.evaluated), "rows": len(rows), "dataset": base.version}
    return {graph.COMPARISON: Outcome(Made(compared.data_version(), summary))}


def _draw(compared: Comparison, folder: Path) -> None:
    """The pictures that Dagster's UI shows; the HTML report draws its own."""
    (folder / LEADERBOARD_PICTURE).write_bytes(leaderboard_png(compared))
    (folder / SUITES_PICTURE).write_bytes(suites_png(compared))
    (folder / COST_PICTURE).write_text(to_svg(cost_against_quality(compared)), encoding="utf-8")


def _teacher_again(work: Work) -> ScoredPredictions | None:
    """The teacher asked once more, where its endpoint is configured and answered."""
    partition = Partition(work.partition.workload)
    asked = work.flywheel.artifacts.current(graph.TEACHER_EVAL, partition)
    # An evaluation from before the endpoint was taken out of flywheel.yaml says nothing about today.
    if asked is None or asked.state != "ok" or not wanted(work.flywheel.settings, graph.TEACHER_EVAL, partition):
        return None
    return read_predictions(asked.path / PREDICTIONS_FILE)


def _full_price_notes(arms: Sequence[ArmResult], prices: Mapping[str, TokenPrice]) -> Iterator[str]:
    """Of which candidates cached tokens were counted at the full price, over all of their variants."""
    tokens: dict[str, Counter[str]] = {}
    for arm in arms:
        if arm.report is not None:
            known = {kind: count for kind, count in arm.report.tokens.items() if count is not None}
            tokens.setdefault(arm.candidate, Counter()).update(known)
    for candidate, used in tokens.items():
        note = full_price_note(f"{candidate}'s", candidate, used["prompt"], used["cached"], prices.get(candidate))
        if note:
            yield note


def _arms(work: Work, workload: str) -> Iterator[ArmResult]:
    """Every variant of every candidate, as it ended. Raises Tampered where an evaluation is not what was published."""
    flywheel = work.flywheel
    state = flywheel.state([workload], as_read=True)
    holes = {(hole.asset, hole.partition): hole.reason for hole in plan(state, given_up=every_failure(state)).holes}
    for candidate in flywheel.settings.candidates_of(workload):
        partition = Partition(workload, candidate.id)
        for variant, asset in graph.EVALS.items():
            artifact = flywheel.artifacts.current(asset, partition)
            failure = holes.get((asset, partition))
            if failure is not None or artifact is None:
                reason = failure or "not made yet"
                ended = "failed" if failure else "missing"
                yield ArmResult(candidate.id, variant, ended, reason, derived_from=candidate.derived_from)
            elif artifact.state != "ok":
                yield ArmResult(candidate.id, variant, artifact.state, artifact.reason, derived_from=candidate.derived_from)
            else:
                require_untouched(work.context.instance, [artifact])
                adapter = artifact.manifest["inputs"].get(f"{graph.ADAPTER}@{partition.path}")
                yield ArmResult(
                    candidate.id,
                    variant,
                    "ok",
                    report=EvalReport.from_json(orjson.loads((artifact.path / REPORT_FILE).read_bytes())),
                    evaluation=read_predictions(artifact.path / PREDICTIONS_FILE),
                    derived_from=candidate.derived_from,
                    version=artifact.version,
                    adapter_version=adapter,
                    answered_by=_who_answered(artifact),
                )


def _who_answered(evaluation: Artifact) -> str | None:
    """Hash of the model, template and prefix that answered (16 hex digits); None where nothing was recorded of them.

    Where a person asked for it again, a model was replaced that nothing else tells from the one before. An adapter has a
    version of its own, and builds of an engine come and go.
    """
    about = evaluation.summary.get("served")
    if about is None:
        return None
    prefix = evaluation.manifest["inputs"].get(f"{graph.PREFIX}@{evaluation.partition.path}")
    again = (evaluation.manifest["settings"] or {}).get(AGAIN)
    said = [about.get("model_identity"), about.get("template_identity"), prefix, again]
    return hashlib.sha256(orjson.dumps(said)).hexdigest()[:16]


def _decide(work: Work) -> Mapping[str, Outcome]:
    settings = work.flywheel.settings.decision_for(work.partition.workload)
    evaluation = work.flywheel.settings.evaluation_for(work.partition.workload)
    upstream = work.trusted(graph.COMPARISON)
    compared = read_comparison(upstream)
    # The look is written down before its verdict is published: whatever happens in between, alpha is spent once.
    with work.flywheel.looks.deciding(work.partition.workload) as (log, record):
        try:
            decided = decide(
                compared,
                registered_gates(work.flywheel.settings, work.partition.workload),
                alpha=settings.alpha,
                power=settings.power,
                max_error_share=evaluation.max_error_share,
                looks=schedule_of(settings.looks, compared.exam),
                earlier=counted(log),
                started_over=last_start(log),
                incumbent=work.flywheel.incumbent(work.partition.workload),
            )
        except (InvalidEvidence, InvalidGate) as error:
            raise Refusal(str(error), check=(graph.DECISION, "gates")) from error
        if (look := look_taken(decided)) is not None:
            record(look)
    draft = work.draft(graph.DECISION).path
    (draft / DECISION_FILE).write_bytes(orjson.dumps(decided.to_json(), option=orjson.OPT_INDENT_2))
    losses = _losses(work, compared, decided)
    examples = losses[0].examples if losses else ()
    (draft / "report.md").write_text(to_markdown(compared, decided, examples), encoding="utf-8")
    # Not the time of day: an artifact's version is the hash of its files, and equal evidence gives an equal decision.
    compared_at = datetime.fromtimestamp(upstream.manifest["created_at"], UTC)
    report = report_of(compared, decided, losses, compared_at=compared_at, max_age_days=settings.max_age_days)
    (draft / HTML_REPORT).write_text(to_html(report), encoding="utf-8")
    for name in PICTURES:
        shutil.copyfile(upstream.path / name, draft / name)
    gates = CheckOutcome("gates", True, f"The evidence is sound; the verdict is {decided.verdict}.")
    records = work.flywheel.artifacts.current(graph.RECORDS, Partition(work.partition.workload))
    read_at = {} if records is None else {TRAFFIC_READ_AT: records.manifest["created_at"]}
    return {graph.DECISION: Outcome(Made(decided.data_version(), {**decided.to_status(), **read_at}), [gates])}


def _losses(work: Work, compared: Comparison, decided: Decision) -> tuple[Losses, ...]:
    """Real rows that the winner, or the variant closest to winning, still loses: what a mean does not show."""
    focus = arm_in_focus(compared, decided)
    if focus is None or focus.version is None:
        return ()
    partition = Partition(work.partition.workload, focus.candidate)
    evaluated = work.flywheel.artifacts.version(graph.EVALS[focus.variant], partition, focus.version)
    rows = read_eval_rows(work.upstream(graph.BASE).path)
    return losses_of(rows, read_predictions(evaluated.path / PREDICTIONS_FILE), gated_metrics(decided))


def read_comparison(artifact: Artifact) -> Comparison:
    """The comparison in a published artifact."""
    return Comparison.from_json(orjson.loads((artifact.path / COMPARISON_FILE).read_bytes()))


def _describe_comparison(artifact: Artifact) -> Mapping[str, Any]:
    compared = read_comparison(artifact)
    return {
        IN_SHORT: _leader(compared),
        **_pictures(artifact.path),
        "holes": bullet_table(
            ["candidate", "variant", "state", "why"],
            [[arm.candidate, arm.variant, arm.state, arm.reason] for arm in compared.holes],
        ),
        "report": report_text(artifact.path / "report.md"),
        "variants examined": f"{artifact.summary['evaluated']} of {artifact.summary['arms']}",
        "eval rows": artifact.summary["rows"],
        "sources of the rows": counts(compared.eval_sources),
        **columns.leaderboard_table(artifact.path / LEADERBOARD_FILE, compared.table()[0], list(compared.reference)),
    }


def _leader(compared: Comparison) -> str:
    """Who does best on the workload's main metric, beside how many."""
    metric = MAIN_METRIC[compared.workload_type]
    scored = [
        (score.value, arm.label) for arm in compared.evaluated if arm.report and (score := arm.report.scores.get(metric))
    ]
    if not scored:
        return "no variant could be examined; *holes* says why"
    value, label = max(scored)
    return f"best of {len(scored)} examined variants: {label}, {metric} {value:.3f}; {len(compared.holes)} are missing"


def _what_now(workload: str, verdict: str, needed: int | None) -> str:
    """What a person does about a verdict."""
    if verdict == Verdict.PROMOTE:
        return f"a person approves: the job promote, or: flywheel approve {workload} --why ..."
    if verdict == Verdict.KEEP:
        return "nothing: the teacher keeps serving. Another candidate, or other training settings, may do better."
    return f"ingest until there are {needed:,} eval rows; the next turn decides anew" if needed else "see why"


def _pictures(folder: Path) -> Mapping[str, Any]:
    """The leaderboard, the heat map, cost against quality, and where the report lies that has all of it."""
    return {
        "report to open in a browser": dg.MetadataValue.path(str(folder / HTML_REPORT)),
        "leaderboard": picture((folder / LEADERBOARD_PICTURE).read_bytes(), "scores with 95% intervals"),
        "by suite": picture((folder / SUITES_PICTURE).read_bytes(), "scores by suite label"),
        "cost against quality": drawing((folder / COST_PICTURE).read_text(encoding="utf-8"), "cost against quality"),
    }


def _describe_decision(artifact: Artifact) -> Mapping[str, Any]:
    summary = artifact.summary
    return {
        IN_SHORT: masked_text(next(iter(summary["reasons"]), summary["verdict"])),
        "verdict": summary["verdict"],
        "winner": f"{summary['candidate']} ({summary['variant']})" if summary["candidate"] else "none",
        "why": bullets(masked_text(reason) for reason in summary["reasons"]),
        "what now": _what_now(artifact.partition.workload, summary["verdict"], summary["needed_rows"]),
        **_pictures(artifact.path),
        "report": report_text(artifact.path / "report.md"),
        "evidence": dg.MetadataValue.json(orjson.loads((artifact.path / DECISION_FILE).read_bytes())["evidence"]),
    }
