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
from flywheel_assets.settings import Candidate, Settings


@dataclass(frozen=True, slots=True)
class Selection:
    """One evaluated model: the candidate, how it is run, and whether a person promoted it.

    `prefix` are the messages a prefixed model was examined with, empty for the others: they travel with the request, behind
    its instructions, so no server can add them. `prefix_file` is where they lie.
    """

    candidate: Candidate
    variant: Variant
    adapter_gguf: Path | None
    verdict: str | None
    promoted: bool
    prefix: tuple[Json, ...] = ()
    prefix_file: Path | None = None


def select(settings: Settings, artifacts: ArtifactStore, workload: str, candidate_id: str | None = None) -> Selection:
    """The decision's winner, or else the best evaluated model (of `candidate_id`, if given).

    Where nothing won, a customized model goes before a base one: it is what there is to try out. ArtifactMissing if
    nothing is evaluated.
    """
    decision = artifacts.current(graph.DECISION, Partition(workload))
    acts = PromotionLog(settings.home).acts(workload)
    verdict = decision.summary.get("verdict") if decision else None
    winner = decision.summary if decision else {}
    if winner.get("candidate") and candidate_id in (None, winner["candidate"]):
        candidate, variant, promoted = (
            winner["candidate"],
            Variant(winner["variant"]),
            decision is not None and is_approved(acts, decision.version),
        )
    else:
        candidate, variant = _best(settings, artifacts, workload, candidate_id)
        promoted = False
    adapter = _adapter(artifacts, workload, candidate) if variant is Variant.CUSTOMIZED else None
    selected = Selection(settings.candidate(candidate), variant, adapter, verdict, promoted)
    if variant is not Variant.PREFIXED:
        return selected
    folder = artifacts.require(graph.PREFIX, Partition(workload, candidate)).path
    return replace(selected, prefix=tuple(read_prefix(folder)), prefix_file=folder / PREFIX_FILE)


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


def _adapter(artifacts: ArtifactStore, workload: str, candidate: str) -> Path:
    return artifacts.require(graph.ADAPTER, Partition(workload, candidate)).path / "adapter.gguf"
