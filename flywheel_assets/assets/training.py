"""Training: whether a cell needs a fine-tune, and the adapter that comes of it."""

import hashlib
import math
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.metadata import IN_SHORT, bullet_table, counts, picture
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Work, publish
from flywheel_assets.assets.specs import GPU_POOL, check_spec, spec
from flywheel_assets.core import graph
from flywheel_assets.core.plots import loss_curve_png
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.platform import Adapter, Platform, TrainingOrder
from flywheel_assets.resources.serving.endpoint import GATEWAY_TEMPLATE
from flywheel_assets.resources.training import HostedAdapter, TrainedAdapter
from flywheel_assets.settings import Candidate, FinetuneMode, Settings

REPORT_FILE = "training.json"
ADAPTER_DIR = "adapter"
ADAPTER_GGUF = "adapter.gguf"
REMOTE_FILE = "remote.json"


def training_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`finetune_decision` and `adapter`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.FINETUNE_DECISION,
                description="Whether this cell is fine-tuned, and why. `finetune.mode` says how that is decided: `always`, "
                "`never`, or `if_needed`, which looks at the base model on validation rows and never at the exam.",
                kinds=["json"],
            )
        ]
    )
    def finetune_decision(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(
            context, flywheel, [graph.FINETUNE_DECISION], _decide_finetune, {graph.FINETUNE_DECISION: _describe_decision}
        )

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.ADAPTER,
                description="What the training made: a LoRA adapter in PEFT form (and as GGUF for llama.cpp), with its loss "
                "curve.\n\nWhile it trains, the run's log has a line every few seconds: step, loss, tokens a second, time "
                "left. A run that is ended or killed goes on from its last checkpoint.",
                kinds=["pytorch", "huggingface"],
            )
        ],
        check_specs=[
            check_spec(
                "loss_finite",
                graph.ADAPTER,
                "Every logged loss is a finite number. If it fails: the training ran away; lower training.learning_rate.",
                settings,
            ),
            check_spec(
                "improves_validation",
                graph.ADAPTER,
                "The loss on validation rows fell. If it fails: nothing was learned that holds beyond the training rows; "
                "look at the curve, then try fewer training.epochs, a lower training.learning_rate, or more records.",
                settings,
                blocking=False,
            ),
        ],
        # A cluster queues trainings by itself.
        pool=GPU_POOL if settings.platform == "local" else None,
    )
    def adapter(
        context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel], platform: dg.ResourceParam[Platform]
    ) -> Events:
        def train(work: Work) -> Mapping[str, Outcome]:
            return _train(work, platform)

        yield from publish(context, flywheel, [graph.ADAPTER], train, {graph.ADAPTER: _describe_adapter})

    return [finetune_decision, adapter]


def skipped(work: Work, asset: str, reason: str) -> Mapping[str, Outcome]:
    """An artifact that says the work was not needed: never a missing materialization."""
    (work.draft(asset).path / "skipped.txt").write_text(reason + "\n", encoding="utf-8")
    meaning = hashlib.sha256(f"skipped:{reason}".encode()).hexdigest()[:32]
    return {asset: Outcome(Made(data_version=meaning, summary={}, state="skipped", reason=reason))}


def _decide_finetune(work: Work) -> Mapping[str, Outcome]:
    settings = work.flywheel.settings
    candidate = settings.candidate(work.partition.candidate)
    finetune = settings.finetune_for(work.partition.workload)
    needed, reason = _why_not(candidate)
    if needed and finetune.mode is FinetuneMode.NEVER:
        needed, reason = False, "finetune.mode is `never`"
    elif needed and finetune.mode is FinetuneMode.IF_NEEDED:
        scores = work.upstream(graph.VALIDATION_EVAL).summary["scores"]
        score = scores.get(finetune.metric, {}).get("value")
        if score is None:
            reason = f"the base model has no `{finetune.metric}` on validation rows; fine-tuning to be safe"
        else:
            needed = score < finetune.threshold
            reason = f"base {finetune.metric} on validation rows is {score:.3f}; the threshold is {finetune.threshold:.3f}"
    elif needed:
        reason = "finetune.mode is `always`"
    content: Json = {"needed": needed, "reason": reason, "mode": finetune.mode}
    encoded = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    (work.draft(graph.FINETUNE_DECISION).path / "decision.json").write_bytes(encoded)
    return {graph.FINETUNE_DECISION: Outcome(Made(hashlib.sha256(encoded).hexdigest()[:32], content))}


def _why_not(candidate: Candidate) -> tuple[bool, str]:
    """Whether this candidate can be fine-tuned here at all."""
    if candidate.is_remote:
        return False, f"'{candidate.id}' is an endpoint of somebody else's; it cannot load our adapter"
    if not candidate.trainable:
        return False, f"'{candidate.id}' is not trainable (`trainable: false` in flywheel.yaml)"
    return True, ""


def _train(work: Work, platform: Platform) -> Mapping[str, Outcome]:
    decision = work.upstream(graph.FINETUNE_DECISION).summary
    if not decision["needed"]:
        return skipped(work, graph.ADAPTER, f"not fine-tuned: {decision['reason']}")
    flywheel, partition = work.flywheel, work.partition
    train = work.upstream(graph.TRAIN)
    draft = work.draft(graph.ADAPTER).path
    # Keyed by the inputs: a killed run finds its own checkpoints again, and never those of another dataset or setting.
    work_dir = flywheel.settings.home / "training" / work.inputs[graph.ADAPTER].key
    started = time.time()
    order = TrainingOrder(
        train_files=sorted((train.path / "train").glob("*.jsonl")),
        validation_files=sorted((train.path / "validation").glob("*.jsonl")),
        settings=flywheel.settings.training_for(partition.workload, partition.candidate),
        out_dir=work_dir / "out",
        work_dir=work_dir,
        inputs_key=work.inputs[graph.ADAPTER].key,
        readings=work.watch.reading,
    )
    with work.watch.span("training"):
        trained = platform.train(work.context, flywheel.settings.candidate(partition.candidate), order)
    identities = _kept(trained, draft)
    report: Json = {**trained.report, "trained_on": train.version, "model_busy": (started, time.time())}
    (draft / REPORT_FILE).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    summary = {key: value for key, value in report.items() if key != "row_ids"} | identities
    made = Made(identities["weights_sha256"][:32], summary)
    # The checkpoints have done their work when the adapter is published, and not before: a kill until then takes them up.
    return {graph.ADAPTER: Outcome(made, _checks(report), once_published=partial(shutil.rmtree, work_dir, True))}


def _kept(trained: TrainedAdapter, draft: Path) -> Json:
    """Put the adapter into the draft, or what names it where it lies elsewhere; what tells it from any other."""
    if trained.adapter_dir is None:
        named = {"remote_model": trained.remote_model, "customization_job": trained.report.get("customization_job")}
        encoded = orjson.dumps(named, option=orjson.OPT_SORT_KEYS)
        (draft / REMOTE_FILE).write_bytes(encoded)
        # No weights to hash: the name they are served under and the job that made them stand for them.
        stand_in = hashlib.sha256(encoded).hexdigest()
        return {**named, "weights_sha256": stand_in, "gguf_sha256": None, "template_sha256": GATEWAY_TEMPLATE}
    shutil.copytree(trained.adapter_dir, draft / ADAPTER_DIR)
    if trained.gguf is not None:
        shutil.copyfile(trained.gguf, draft / ADAPTER_GGUF)
    template = (draft / ADAPTER_DIR / "chat_template.jinja").read_text(encoding="utf-8")
    return {
        "remote_model": None,
        "weights_sha256": _sha256(draft / ADAPTER_DIR / "adapter_model.safetensors"),
        "gguf_sha256": None if trained.gguf is None else _sha256(draft / ADAPTER_GGUF),
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
    }


def adapter_of(artifact: Artifact) -> Adapter | None:
    """The adapter a platform can serve; None where there is only one that llama.cpp cannot load."""
    if (remote := artifact.summary.get("remote_model")) is not None:
        return HostedAdapter(remote)
    return None if artifact.summary["gguf_sha256"] is None else artifact.path / ADAPTER_GGUF


def trained_row_ids(artifact: Artifact) -> set[str]:
    """The rows an adapter was really trained on."""
    return set(orjson.loads((artifact.path / REPORT_FILE).read_bytes())["row_ids"])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checks(report: Json) -> list[CheckOutcome]:
    losses = [point["loss"] for point in report["loss_curve"]]
    finite = bool(losses) and all(math.isfinite(loss) for loss in losses)
    said = f"{len(losses)} losses logged, the last {losses[-1] if losses else '-'}."
    checks = [CheckOutcome("loss_finite", finite, said if finite else f"{said} Lower training.learning_rate.")]
    before, after = report["validation"]["loss_before"], report["validation"]["loss_after"]
    if before is None or after is None:
        message = "No validation rows to look at; raise split.val_ratio or ingest more."
        checks.append(CheckOutcome("improves_validation", False, message, blocking=False))
    else:
        message = f"Loss on {report['validation']['rows']} validation rows went from {before:.3f} to {after:.3f}."
        checks.append(CheckOutcome("improves_validation", after < before, message, blocking=False))
    return checks


def _describe_decision(artifact: Artifact) -> Mapping[str, Any]:
    summary = artifact.summary
    return {"fine-tuned": "yes" if summary["needed"] else "no", "why": summary["reason"], "mode": summary["mode"]}


def _in_short(report: Json) -> str:
    """What the training did to the loss, and how long that took."""
    validation, seconds = report["validation"], report["seconds"].get("train")
    before, after = validation["loss_before"], validation["loss_after"]
    known = before is not None and after is not None
    loss = f"loss on {validation['rows']} validation rows {before:.3f} -> {after:.3f}" if known else "no validation rows"
    lasted = "" if seconds is None else f" in {seconds:.0f} s"
    return f"{loss}; {report['steps']} steps{lasted} on {report['device']['name']}"


def _describe_adapter(artifact: Artifact) -> Mapping[str, Any]:
    if artifact.state == "skipped":
        return {}
    report = artifact.summary
    points = [(point["step"], point["loss"]) for point in report["loss_curve"]]
    ends = ((0, report["validation"]["loss_before"]), (report["steps"], report["validation"]["loss_after"]))
    return {
        IN_SHORT: _in_short(report),
        "loss": picture(loss_curve_png(points, [(step, loss) for step, loss in ends if loss is not None]), "loss by step"),
        "steps": report["steps"],
        "rows": counts({name.replace("_", " "): number for name, number in report["rows"].items()}),
        "final loss": round(points[-1][1], 4) if points else 0.0,
        "tokens per second": report["tokens_per_s"] or 0.0,
        "duration": ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in report["seconds"].items()),
        "settings": bullet_table(["setting", "value"], list(artifact.manifest["settings"]["training"].items())),
        "device": f"{report['device']['name']} ({report['device']['dtype']})",
    }
