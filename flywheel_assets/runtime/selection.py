"""Selection: which candidate, variant and adapter of a workload an application should use now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.prefix import PREFIX_FILE, read_prefix
from flywheel_assets.core.promotion import is_approved
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing, ArtifactStore
from flywheel_assets.resources.promotions import PromotionLog
from flywheel_assets.resources.provenance import adapter_of, prefix_of
from flywheel_assets.settings import Candidate, Settings

_MADE_FOR = {Variant.CUSTOMIZED: graph.ADAPTER, Variant.PREFIXED: graph.PREFIX}


@dataclass(frozen=True, slots=True)
class Selection:
    """One evaluated model: the candidate, how it is run, and whether a person promoted it.

    `prefix` are the messages a prefixed model was examined with, empty for the others: they travel with the request, behind
    its instructions, so no server can add them. `prefix_file` is where they lie. `evidence` are the versions that all of
    this was read from.
    """

    candidate: Candidate
    variant: Variant
    adapter_gguf: Path | None
    verdict: str | None
    promoted: bool
    prefix: tuple[Json, ...] = ()
    prefix_file: Path | None = None
    evidence: tuple[Artifact, ...] = ()


def select(settings: Settings, artifacts: ArtifactStore, workload: str, candidate_id: str | None = None) -> Selection:
    """The decision's winner, or else the best evaluated model (of `candidate_id`, if given).

    A winner comes with the adapter or prefix it was examined with, whatever was made since. Where nothing won, a customized
    model goes before a base one: it is what there is to try out. ArtifactMissing if nothing is evaluated, or if what the
    winner was examined with is gone.
    """
    decision = artifacts.current(graph.DECISION, Partition(workload))
    verdict = decision.summary.get("verdict") if decision else None
    winner = decision.summary.get("candidate") if decision else None
    if decision is not None and winner and candidate_id in (None, winner):
        variant = Variant(decision.summary["variant"])
        promoted = is_approved(PromotionLog(settings.home).acts(workload), decision.version)
        selected = Selection(settings.candidate(winner), variant, None, verdict, promoted, evidence=(decision,))
        return _with(selected, _examined_with(artifacts, decision, variant))
    candidate, variant = _best(settings, artifacts, workload, candidate_id)
    selected = Selection(settings.candidate(candidate), variant, None, verdict, promoted=False)
    needed = _MADE_FOR.get(variant)
    return _with(selected, None if needed is None else artifacts.require(needed, Partition(workload, candidate)))


def _examined_with(artifacts: ArtifactStore, decision: Artifact, variant: Variant) -> Artifact | None:
    if variant not in _MADE_FOR:
        return None
    found = adapter_of(artifacts, decision) or prefix_of(artifacts, decision)
    if found is None:
        workload = decision.partition.workload
        raise ArtifactMissing(
            f"the {_MADE_FOR[variant]} that the winner on '{workload}' was examined with is gone from this flywheel home. "
            f"Make another one and decide on it: `flywheel run {workload}`."
        )
    return found


def _with(selected: Selection, made: Artifact | None) -> Selection:
    if made is None:
        return selected
    selected = replace(selected, evidence=(*selected.evidence, made))
    if selected.variant is Variant.CUSTOMIZED:
        return replace(selected, adapter_gguf=made.path / "adapter.gguf")
    return replace(selected, prefix=tuple(read_prefix(made.path)), prefix_file=made.path / PREFIX_FILE)


def _best(settings: Settings, artifacts: ArtifactStore, workload: str, candidate_id: str | None) -> tuple[str, Variant]:
    evaluated: list[tuple[bool, float, str]] = []
    for candidate in settings.candidates_of(workload):
        if candidate_id not in (None, candidate.id):
            continue
        for variant in (Variant.CUSTOMIZED, Variant.BASE):
            report = artifacts.current(graph.EVALS[variant], Partition(workload, candidate.id))
            if report is not None and report.state == "ok":
                evaluated.append((variant is Variant.CUSTOMIZED, _headline(report), candidate.id))
    if not evaluated:
        whose = f"candidate '{candidate_id}'" if candidate_id else "any candidate"
        raise ArtifactMissing(f"nothing of {whose} is evaluated on '{workload}' yet. Run `flywheel run {workload}` first.")
    customized, _, best = max(evaluated)
    return best, Variant.CUSTOMIZED if customized else Variant.BASE


def _headline(report: Artifact) -> float:
    """The score models are ranked by: the workload's first metric that this report has."""
    scores = report.summary["scores"]
    found = (scores[metric]["value"] for metric in ("function_name_and_args", "f1") if metric in scores)
    return float(next(found, -1.0))
