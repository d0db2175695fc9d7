"""Outlook: what would change the verdict.

What belongs here: for the arm in focus, how far each gate is from being met, with how many more rows or at which margin it
would be; the next look; the expiry. What does not: the rows still needed, which `core.decisions` plans, and the tests
(`core.gate_findings`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision, Verdict, incumbent_of
from flywheel_assets.core.gate_findings import TestedGate, judge_gate
from flywheel_assets.core.gates import Gate, GateKind
from flywheel_assets.core.report.gate_table import GateCell, GateTable, Standing, asks, level_of

_LIMITS = {GateKind.NON_INFERIOR: "a margin", GateKind.FLOOR: "a floor", GateKind.IMPROVEMENT: "an improvement"}


@dataclass(frozen=True, slots=True)
class GateOutlook:
    """One gate of the arm in focus.

    `spare`: how far the bound lies beyond what is asked for (0..1, negative short of it), None for observed gates. `rows` it
    was judged on, `more_rows` wanted where the decision planned them, and `would_pass`: the limit with which the gate would
    be met on the present rows; both with all variants allowed for, and None where the gate is met even so.
    """

    label: str
    asks: str
    cell: GateCell
    spare: float | None
    rows: int | None
    more_rows: int | None
    would_pass: str | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would change the verdict: sentences, and the gates of the arm in focus, the one closest to turning first."""

    arm: str | None
    gates: tuple[GateOutlook, ...]
    sentences: tuple[str, ...]


def outlook_of(
    comparison: Comparison,
    decision: Decision,
    table: GateTable,
    focus: Arm | None,
    *,
    max_age_days: int | None = None,
) -> Outlook:
    """The outlook; `table` is that of the decision, `focus` the arm of `examples.arm_in_focus`."""
    gates = () if focus is None else tuple(_gates(comparison, decision, table, focus))
    sentences = [
        *_on_rows(decision, focus, gates),
        *_on_looks(comparison, decision),
        *_on_expiry(decision, max_age_days),
    ]
    return Outlook(focus.label if focus else None, gates, tuple(sentences))


def _gates(comparison: Comparison, decision: Decision, table: GateTable, focus: Arm) -> list[GateOutlook]:
    row = next((r for r in table.rows if (r.candidate, r.variant) == (focus.candidate, focus.variant.value)), None)
    if row is None:
        return []
    missing, level = decision.evidence.get("closest", {}).get("missing", {}), _strictest(decision)
    found = []
    for column, cell in zip(table.columns, row.cells, strict=True):
        if cell is None:
            continue
        gate, test = column.gate, cell.test
        is_open = test is not None and (cell.standing is not Standing.MET or test.p_non_inferior > level)
        found.append(
            GateOutlook(
                label=gate.label,
                asks=asks(gate),
                cell=cell,
                spare=None if test is None else test.low + gate.margin,
                rows=None if test is None else test.n,
                more_rows=missing.get(gate.label) if is_open else None,
                would_pass=_would_pass(comparison, decision, gate, focus) if is_open else None,
            )
        )
    return sorted(found, key=lambda gate: math.inf if gate.spare is None else gate.spare)


def _would_pass(comparison: Comparison, decision: Decision, gate: Gate, arm: Arm) -> str | None:
    """The nearest limit (to 0.001) with which the gate would be met, at the strictest level Holm may ask for."""
    settings, level = decision.evidence["settings"], _strictest(decision)

    def judged(limit: float) -> TestedGate:
        asked = replace(gate, limit=limit)
        clusters, seed = settings["min_clusters"], settings["seed"]
        return judge_gate(
            comparison, arm, asked, alpha=level, min_clusters=clusters, seed=seed, incumbent=incumbent_of(decision)
        )

    if not judged(gate.limit).enough_clusters:
        return None
    wider = gate.kind is GateKind.NON_INFERIOR
    # Passing follows the limit, so halving finds where it begins. The test itself is asked, not its bound: how much rows of
    # long conversations are worth depends on the margin.
    passes, fails = (1000, 0) if wider else (0, 1000)
    while abs(passes - fails) > 1:
        middle = (passes + fails) // 2
        if judged(middle / 1000).p_value <= level:
            passes = middle
        else:
            fails = middle
    return f"{_LIMITS[gate.kind]} of {passes / 1000:.3f}" if 0 < passes < 1000 else None


def _strictest(decision: Decision) -> float:
    return level_of(decision.evidence) / len(decision.evidence["arms"])


def _on_rows(decision: Decision, focus: Arm | None, gates: tuple[GateOutlook, ...]) -> list[str]:
    if focus is None or decision.evidence["look"] is None:
        return []
    tested = [gate for gate in gates if gate.spare is not None]
    match decision.verdict:
        case Verdict.PROMOTE if tested:
            tightest = tested[0]
            return [
                f"{focus.label} meets its tightest gate, {tightest.label}, with {tightest.spare:.3f} to spare. New rows on "
                "which it does worse by more than that would take the verdict back."
            ]
        case Verdict.KEEP:
            return [
                f"{focus.label} comes closest. More rows of the same kind will not help it; a better candidate, more "
                "training or another prefix may."
            ]
        case Verdict.INCONCLUSIVE:
            return [
                f"No variant is shown to meet every gate, and {focus.label}, which comes closest, is not shown to miss one."
            ]
    return []


def _on_looks(comparison: Comparison, decision: Decision) -> list[str]:
    registered, rows = decision.evidence["settings"]["looks"], len(comparison.row_ids)
    if not registered:
        return []
    upcoming = next((count for count in registered if count > rows), None)
    if upcoming is None:
        return [
            f"The last registered look is reached. `flywheel looks {comparison.workload}` shows what each look spent, and "
            "how to start over."
        ]
    return [f"The next look is registered at {upcoming:,} eval rows; there are {rows:,} now."]


def _on_expiry(decision: Decision, max_age_days: int | None) -> list[str]:
    changes = "as soon as anything it rests on changes: the records, the models, the prices or the gates"
    if decision.verdict is not Verdict.PROMOTE or max_age_days is None:
        return [f"It is decided again {changes}."]
    return [
        f"It expires {max_age_days} days after it was decided (decision.max_age_days), and before that {changes}. From then "
        "on an approval is refused."
    ]
