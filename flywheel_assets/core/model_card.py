"""The model card of a published adapter: what it is, what was measured, by which rules it passed, and where that ends.

What belongs here: the card's words and its front matter, from the evidence alone. Equal evidence gives an equal card: no
time of day, no machine. No row and nobody's name stands in it. What does not: which files go beside it (`payload`), where
it goes (`resources.hub`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.markdown_text import harmless, harmless_cell, harmless_code
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.payload import GGUF, PREFIX
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.report.caveats import caveats
from flywheel_assets.core.rows import Json, Variant

UNKNOWN = "unknown"
_LABELS = {
    Variant.BASE: "base model",
    Variant.PREFIXED: "base model with a few-shot prefix",
    Variant.CUSTOMIZED: "this adapter",
}
_ASKED = {
    "non_inferior": "loses less than {limit:g} against {against}",
    "floor": "above {limit:g}",
    "improvement": "gains more than {limit:g} over the base model",
}
_AGAINST = {"reference": "the teacher", "teacher": "the teacher, asked once more", "incumbent": "the model that served then"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is written from.

    `decision` is the decision that was approved, and the adapter its winner; `versions` names the versions the evidence
    rests on, by what they are. `training` is the trainer's report. `base_model` is a hub id, None where nobody said;
    `license` is the base model's. `approved_on` and `expires` are ISO 8601 dates. `files` are the names beside the card.
    """

    repository: str
    decision: Decision
    comparison: Comparison
    base_model: str | None
    license: str | None
    derived_from: str | None
    training: Mapping[str, Any]
    versions: Mapping[str, str]
    approved_on: str
    expires: str
    files: Sequence[str]


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(_lines(facts)).rstrip() + "\n"


def _front_matter(facts: CardFacts) -> Json:
    base = {"base_model": facts.base_model, "base_model_relation": "adapter"} if facts.base_model else {}
    return {
        "license": facts.license or UNKNOWN,
        **base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "flywheel-assets", str(facts.comparison.workload_type)],
    }


def _lines(facts: CardFacts) -> Iterator[str]:
    compared, candidate = facts.comparison, str(facts.decision.candidate)
    yield f"# {facts.repository.rpartition('/')[2]}"
    yield ""
    yield (
        f"A LoRA adapter for one workload, `{harmless_code(compared.workload)}` ({compared.workload_type}), trained on the "
        "answers logged there. The model that gave them is the *teacher* below. "
        f"Base model: {_named_base(facts, candidate)}."
    )
    yield ""
    yield f"A person approved it on {facts.approved_on}; the decision holds until {facts.expires} if nothing ends it before."
    yield ""
    yield "## Evaluation"
    yield ""
    yield (
        f"{len(compared.row_ids)} requests of {len(set(compared.clusters))} conversations that no training row comes from. "
        f"Sources: {_counts(compared.eval_sources) or 'not recorded'}. Each cell is a mean, its 95% interval and, in "
        "brackets, the rows the metric applies to."
    )
    yield ""
    yield from _scores(compared, candidate)
    yield ""
    yield f"## Why it passed: verdict `{facts.decision.verdict.value}`"
    yield ""
    yield from _gates(facts.decision, candidate)
    yield ""
    yield "## Training"
    yield ""
    yield from _training(facts.training)
    yield ""
    yield "## Limits"
    yield ""
    yield f"- It was examined on `{harmless_code(compared.workload)}` alone; on anything else nothing is known about it."
    yield from (f"- {harmless(sentence)}" for sentence in caveats(compared))
    yield (
        f"- Licence of the base model: {harmless(facts.license or UNKNOWN)}. The adapter is derived from it, and from "
        "traffic whose owner decides who may have it."
    )
    yield ""
    yield "## Files"
    yield ""
    yield from _files(facts)
    yield ""
    yield "## Versions"
    yield ""
    yield from (f"- {what}: `{version}`" for what, version in facts.versions.items())


def _named_base(facts: CardFacts, candidate: str) -> str:
    named = f"`{harmless_code(facts.base_model)}`" if facts.base_model else f"`{candidate}`, whose id on a hub was not given"
    return named + (f", derived from `{harmless_code(facts.derived_from)}`" if facts.derived_from else "")


def _scores(compared: Comparison, candidate: str) -> Iterator[str]:
    main = MAIN_METRIC[compared.workload_type]
    # The main one first; the others in the order of their columns.
    metrics = sorted(compared.reference_scores, key=lambda metric: metric != main)
    header = ["", *(f"`{metric}`" for metric in metrics), "p50 ms", "p95 ms", "errors"]
    yield _row(header)
    yield _row(["---"] * len(header))
    reference = [f"{score.value:.3f} ({score.n})" for score in (compared.reference_scores[metric] for metric in metrics)]
    yield _row(["teacher (reference)", *reference, "", "", ""])
    if compared.ceiling:
        yield _row(["teacher, asked once more", *(_cell(compared.ceiling.get(metric)) for metric in metrics), "", "", ""])
    for arm in compared.arms:
        if arm.candidate == candidate:
            yield _row([_LABELS[arm.variant], *_arm_cells(arm, metrics)])


def _arm_cells(arm: Arm, metrics: Sequence[str]) -> list[str]:
    if arm.report is None:
        # Not the reason: it may quote a server, or name a folder.
        return [arm.state, *[""] * (len(metrics) + 2)]
    report = arm.report
    latency = [f"{value:.0f}" if (value := report.latency_ms[key]) is not None else "" for key in ("p50", "p95")]
    return [*(_cell(report.scores.get(metric)) for metric in metrics), *latency, str(report.errors)]


def _gates(decision: Decision, candidate: str) -> Iterator[str]:
    found = next(
        arm for arm in decision.evidence["arms"] if (arm["candidate"], arm["variant"]) == (candidate, decision.variant)
    )
    # After a look that was not due there are none: the verdict before stands.
    alpha = decision.evidence["settings"]["alpha"]
    yield f"Gates registered before anybody looked at a score, tested at {alpha:g} over all models and gates together:"
    yield ""
    yield _row(["metric", "rows", "asked for", "measured", "interval it was judged by"])
    yield _row(["---"] * 5)
    for gate in found["gates"]:
        asked = _ASKED[gate["kind"]].format(limit=gate["limit"], against=_AGAINST[gate["against"]])
        where = f"{gate['n']}" + (f" ({gate['suite']})" if gate["suite"] else "")
        yield _row([f"`{gate['metric']}`", where, asked, f"{gate['score']:.3f}", _interval(gate)])
    for gate in found["observed"]:
        asked = "no failure at all" if gate["kind"] == "zero_tolerance" else f"at most {gate['limit']:g}"
        where = f"{gate['rows']}" + (f" ({gate['suite']})" if gate["suite"] else "")
        yield _row([f"`{gate['metric']}`", where, asked, f"{gate['value']:.4g}", ""])


def _interval(gate: Mapping[str, Any]) -> str:
    """Of the difference; of the mean itself where a floor was asked for."""
    if gate["kind"] == "floor":
        return f"[{1 + gate['low']:.3f}, {1 + gate['high']:.3f}]"
    return f"{gate['difference']:+z.3f} [{gate['low']:+z.3f}, {gate['high']:+z.3f}]"


def _training(report: Mapping[str, Any]) -> Iterator[str]:
    rows, validation = report["rows"], report["validation"]
    yield f"{rows['used']} rows, {report['steps']} steps, on {report['device']['kind']} in {report['device']['dtype']}."
    if validation["loss_before"] is not None and validation["loss_after"] is not None:
        yield (
            f"Loss on {validation['rows']} validation rows: {validation['loss_before']:.3f} before, "
            f"{validation['loss_after']:.3f} after."
        )
    settings = report.get("hyperparameters") or {}
    if settings:
        yield ""
        yield _row(["setting", "value"])
        yield _row(["---", "---"])
        yield from (_row([f"`{name}`", str(settings[name])]) for name in sorted(settings) if name != "save_steps")


def _files(facts: CardFacts) -> Iterator[str]:
    yield "- `adapter_model.safetensors`, `adapter_config.json`: the adapter in PEFT form"
    if "tokenizer.json" in facts.files:
        yield "- `tokenizer*.json`: the tokenizer it was trained with"
    else:
        yield "- no tokenizer: it is the base model's, with the chat template beside it"
    yield "- `chat_template.jinja`: how messages and tools are written; it was trained and examined with this one"
    if GGUF in facts.files:
        yield f"- `{GGUF}`: the same adapter for llama.cpp (`--lora`)"
    if PREFIX in facts.files:
        yield f"- `{PREFIX}`: the few-shot prefix that the base model was examined with; the adapter was examined without it"


def _cell(score: Score | None) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] ({score.n})" if score else ""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of `{harmless_code(name)}`" for name, count in sorted(counts.items()))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(harmless_cell(cell) for cell in cells) + " |"
