"""Caveats: what a reader must know before believing a comparison.

What belongs here: one sentence each, true of this comparison. What does not: the verdict's own reasons (`core.decisions`).
"""

from __future__ import annotations

from collections.abc import Iterator

from flywheel_assets.core.clusters import cluster_codes, effective_clusters
from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.datasets.exam import remarks_on
from flywheel_assets.core.judge import JUDGE_COLUMNS
from flywheel_assets.core.rows import WorkloadType

# A few hundred rows decide little; below this the report says so in words.
_FEW_ROWS = 100


def caveats(comparison: Comparison) -> Iterator[str]:
    """The sentences, the most important first."""
    yield f"The reference is {comparison.reference_note}. A high score means agreement with it, not that it is right."
    if comparison.ceiling:
        yield "Asked once more, the teacher agrees with what counts as right that often: the ceiling for everybody else."
    yield "An errored row counts 0 on every metric that applies to it."
    yield "Intervals of two variants may overlap although one is better: the decision compares them row by row."
    if comparison.workload_type is WorkloadType.TOOL_CALLING:
        yield "The `nemo_*` columns repeat NeMo Evaluator's definitions with their faults; the gates use the strict ones."
    if any(metric in JUDGE_COLUMNS for metric in comparison.reference):
        yield "The `judge_*` columns are verdicts of a model, which errs too: docs/judge.md says how they are corrected."
    clusters = len(set(comparison.clusters))
    if clusters < _FEW_ROWS:
        yield f"Only {clusters} independent conversations were asked: differences of several points can be chance."
    if clusters < len(comparison.row_ids):
        worth = effective_clusters(cluster_codes(comparison.clusters, len(comparison.row_ids)))
        uneven = f", worth {worth:.0f} of equal length" if round(worth) < clusters else ""
        yield f"The {len(comparison.row_ids)} rows come from {clusters} conversations{uneven}; intervals are wider for it."
    yield from remarks_on(comparison.exam)
    if comparison.condemned_note:
        yield comparison.condemned_note
    if comparison.reference_latency_ms.get("p50") is not None:
        records = comparison.reference_latency_ms.get("records") or 0
        yield (
            f"The teacher's latency is as logged in production ({records:,} records): another network, machine and load "
            "than the candidates were measured at."
        )
    if comparison.sources_note:
        yield comparison.sources_note
    yield from comparison.notes
