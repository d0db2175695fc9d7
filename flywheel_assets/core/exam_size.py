"""Exam size: how many eval rows the registered gates take, planned before anything is evaluated and never from scores.

What belongs here: from gates, competing variants, error rates and planning values to the rows of the first evaluation set.
What does not: what a judged gate still takes (`core.needs`), how rows are drawn (`core.datasets`), and the arithmetic of a
single test (`core.sample_size`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from flywheel_assets.core.clusters import small_sample, tail_size
from flywheel_assets.core.datasets.conversation import TOOL_CLASS_PREFIX
from flywheel_assets.core.datasets.exam import ExamFacts, ExamPlan
from flywheel_assets.core.gate_findings import MIN_CLUSTERS
from flywheel_assets.core.gates import TESTED, Against, Gate, GateKind
from flywheel_assets.core.judge import JUDGE_COLUMNS, Rubric
from flywheel_assets.core.judge.columns import applies
from flywheel_assets.core.metrics import MetricError, score_rows
from flywheel_assets.core.needs import GateNeed
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, WorkloadType
from flywheel_assets.core.sample_size import needed_rows

# How alike lost rows of one conversation are taken to be (intraclass correlation): turns of a chat share their subject.
_PLANNED_ICC = 0.3
# A gate that could take more rows than this is not what anybody can wait for; the margin must be wider.
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Planning:
    """What an exam is planned for.

    `arms` variants compete for `alpha`; `power` is the chance (0..1) with which one that is as good as expected passes every
    gate. Expected is that it loses `expected_loss` against the reference, gains `expected_gain` over its own base variant,
    and disagrees with a reference that is not always right on `expected_discordance` of the rows (all 0..1). `max_calls`
    bounds the eval rows times arms.
    """

    arms: int
    alpha: float
    power: float
    expected_loss: float
    expected_gain: float
    expected_discordance: float
    max_calls: int


def plan_exam(gates: Sequence[Gate], shares: Mapping[str, float], facts: ExamFacts, planning: Planning) -> ExamPlan:
    """The eval rows with which all gates are probably settled, and the one look at them.

    `shares` says which share of the eval rows (0..1) each gate, by label, applies to. One look, because a second one costs
    rows: with all of alpha at the last, the exam is as short as it can be.
    """
    needs = planned_needs(gates, shares, facts, planning)
    wanted = [math.ceil(need.missing_rows / shares[need.gate]) for need in needs if need.missing_rows is not None]
    most = max(MIN_CLUSTERS, planning.max_calls // max(1, planning.arms))
    size = max([MIN_CLUSTERS, *wanted])
    hopeless = [need.gate for need in needs if need.missing_rows is None]
    note = (
        f"{size:,} eval rows: with them a candidate as good as expected (decision.expected_loss {planning.expected_loss:g}) "
        f"passes every gate in {planning.power:.0%} of cases; {planning.arms} variants share alpha {planning.alpha:g}."
    )
    if size > most:
        note = (
            f"{most:,} eval rows, and {size:,} would be needed: split.max_eval_calls ({planning.max_calls:,} over "
            f"{planning.arms} variants) allows no more. Raise it, or widen the margin of the gates."
        )
        size = most
    if hopeless:
        note += f" A candidate that loses what is expected never meets {', '.join(hopeless)}: widen the margin."
    return ExamPlan(size, (size,), note)


def gate_shares(gates: Sequence[Gate], workload_type: WorkloadType, kinds: Mapping[str, int]) -> dict[str, float]:
    """The share of rows (0..1) that each gate applies to, by label, in traffic of these classes.

    Whether a metric applies depends on the row alone, so a row of each class tells. Gates on one suite are left out: which
    rows bear a label is known once they are drawn.
    """
    rows = sum(kinds.values())
    return {
        gate.label: sum(count for kind, count in kinds.items() if _applies(gate.metric, workload_type, kind)) / rows
        for gate in gates
        if gate.kind in TESTED and gate.suite is None and rows
    }


@cache
def _applies(metric: str, workload_type: WorkloadType, kind: str) -> bool:
    """Whether a metric applies to rows of a class; yes where it applies to neither calls nor text, as one that asks for more
    than that, such as a schema."""
    probes = {True: _probe(Answer(None, (ToolCall("f", "{}"),))), False: _probe(Answer("{}"))}
    if metric in JUDGE_COLUMNS:
        return applies(Rubric(metric), probes[kind.startswith(TOOL_CLASS_PREFIX)].reference, workload_type)
    found = {calls: _has_score(metric, workload_type, row) for calls, row in probes.items()}
    return found[kind.startswith(TOOL_CLASS_PREFIX)] or not any(found.values())


def _has_score(metric: str, workload_type: WorkloadType, row: EvalRow) -> bool:
    try:
        scores = score_rows(workload_type, [row], [Prediction(row.row_id, row.reference)], only={metric})
    except MetricError:
        # A metric of another package that wants more of a row than the probe has says so when it is asked for real.
        return True
    return metric in scores and not bool(np.isnan(scores[metric][0]))


def _probe(reference: Answer) -> EvalRow:
    request = {"messages": [{"role": "user", "content": "?"}], "tools": []}
    return EvalRow("probe", "probe", "probe", request, reference, "single_turn")


def planned_needs(
    gates: Sequence[Gate], shares: Mapping[str, float], facts: ExamFacts, planning: Planning
) -> tuple[GateNeed, ...]:
    """What each tested gate takes from nothing, in rows it applies to, by the planning values.

    Gates without a share are left out: nobody knows on how many rows they will be asked.
    """
    tested = [gate for gate in gates if gate.kind in TESTED and shares.get(gate.label, 0.0) > 0.0]
    # Gates on the same rows are met together or not at all; nearly, so they have equal shares.
    groups = len({shares[gate.label] for gate in tested})
    return tuple(_planned(gate, facts, planning, groups=groups) for gate in tested)


def _planned(gate: Gate, facts: ExamFacts, planning: Planning, *, groups: int) -> GateNeed:
    difference, discordance = _expected(gate, planning)
    need = GateNeed(gate.label, gate.margin, difference, discordance, False, 0, 0.0, None, None)
    if difference <= -gate.margin:
        return need
    level, power = planning.alpha / planning.arms, 1.0 - (1.0 - planning.power) / groups
    independent = needed_rows(discordance, gate.margin, difference=difference, alpha=level, power=power)
    rows = _in_conversations(independent, max(0.0, -difference), gate.margin, facts)
    if rows is None:
        return need
    size = _size_weighted(facts)
    return GateNeed(
        gate.label, gate.margin, difference, discordance, False, 0, 0.0, rows, max(MIN_CLUSTERS, math.ceil(rows / size))
    )


def _expected(gate: Gate, planning: Planning) -> tuple[float, float]:
    """Expected difference to what the gate is held against, and the share of rows on which the two disagree."""
    if gate.kind is GateKind.IMPROVEMENT:
        return planning.expected_gain, max(planning.expected_gain, planning.expected_discordance)
    if gate.kind is GateKind.FLOOR or gate.against is Against.REFERENCE:
        return -planning.expected_loss, planning.expected_loss
    return -planning.expected_loss, max(planning.expected_loss, planning.expected_discordance)


def _in_conversations(independent: int, lost: float, margin: float, facts: ExamFacts) -> int | None:
    """How many rows of such conversations are worth that many independent ones, a share `lost` of them being lost.

    By the design effect of `core.clusters.effective_n`, the imagined lost conversation included: with few losses it is most
    of what is seen. And never fewer than the conversations a test asks for.
    """
    sizes = np.repeat(list(facts.conversation_sizes), list(facts.conversation_sizes.values()))
    if sizes.size == 0 or sizes.max() == 1:
        return max(independent, MIN_CLUSTERS)
    size, tail = _size_weighted(facts), tail_size(sizes, margin)
    alike = 1.0 + _PLANNED_ICC * (size - 1.0)
    rows = max(independent, math.ceil(MIN_CLUSTERS * size))
    while rows <= _MOST_ROWS:
        losses = lost * rows
        effect = max(1.0, (losses * alike + tail**2) / (losses + tail))
        worth = rows / effect * small_sample(rows / size)
        if worth >= independent:
            return rows
        rows = max(rows + 1, math.ceil(rows * min(2.0, independent / max(1.0, worth))))
    return None


def _size_weighted(facts: ExamFacts) -> float:
    """Rows of the conversation that a row of the traffic is in, on average: rows over Kish's effective number."""
    rows = sum(size * count for size, count in facts.conversation_sizes.items())
    squares = sum(size * size * count for size, count in facts.conversation_sizes.items())
    return squares / rows if rows else 1.0
