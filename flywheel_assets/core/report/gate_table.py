"""The gate table of the report: each arm against each registered gate, with the bound beside what was asked for.

What belongs here: reading a decision's evidence, and the words for it. What does not: judging (`core.gate_findings`); the
rules by which a gate counts as met or missed are repeated here from the recorded p-values, never computed from scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from flywheel_assets.core.decision_text import conversations
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.gates import LATENCY, TESTED, Gate, GateKind
from flywheel_assets.core.report.amounts import milliseconds, usd
from flywheel_assets.core.rows import Json
from flywheel_assets.core.statistics import PairedTest


class Standing(StrEnum):
    """What the rows say of one gate of one arm, or of the arm as a whole."""

    MET = "met"
    MISSED = "missed"
    OPEN = "not settled"


@dataclass(frozen=True, slots=True)
class GateCell:
    """One gate of one arm: its standing, the bound that says so, and for tested gates the test behind it."""

    standing: Standing
    shows: str
    score: float | None = None
    reference_score: float | None = None
    test: PairedTest | None = None


@dataclass(frozen=True, slots=True)
class GateColumn:
    """One registered gate: how a person names it, and what it asks for."""

    gate: Gate
    asks: str


@dataclass(frozen=True, slots=True)
class GateRow:
    """One arm: what becomes of it, and its cells in the order of the columns; None where a gate does not apply to it."""

    candidate: str
    variant: str
    standing: Standing
    why: str
    cells: tuple[GateCell | None, ...]

    @property
    def label(self) -> str:
        """How a person names the arm."""
        return f"{self.candidate} ({self.variant})"


@dataclass(frozen=True, slots=True)
class GateTable:
    """All of it, at the error rate `alpha` of this decision (0..1). Where no look was `due`, no verdict rests on it."""

    alpha: float
    due: bool
    columns: tuple[GateColumn, ...]
    rows: tuple[GateRow, ...]


def gate_table_of(decision: Decision, order: Sequence[str] = ()) -> GateTable:
    """The table, read from the evidence; the arms in the order of these labels, others after them."""
    evidence = decision.evidence
    alpha = level_of(evidence)
    gates = tuple(gate_of(found) for found in evidence["settings"]["gates"])
    rows = [_row(arm, gates, alpha) for arm in evidence["arms"]]
    return GateTable(
        alpha=alpha,
        due=evidence["look"] is not None,
        columns=tuple(GateColumn(gate, asks(gate)) for gate in gates),
        rows=tuple(sorted(rows, key=lambda row: order.index(row.label) if row.label in order else len(order))),
    )


def level_of(evidence: Json) -> float:
    """The error rate the verdict was taken at: what this look spends, or the whole alpha where none was due."""
    return float(evidence["look"]["alpha"] if evidence["look"] else evidence["settings"]["alpha"])


def gate_of(found: Mapping[str, Any]) -> Gate:
    """The gate in a piece of evidence that `Gate.to_json` has a part in."""
    return Gate.from_json(found)


def asks(gate: Gate) -> str:
    """What a gate asks for, as the end of a sentence that begins with its name."""
    match gate.kind:
        case GateKind.NON_INFERIOR:
            return f"loses less than {gate.limit:g} against the {gate.against}"
        case GateKind.FLOOR:
            return f"is above {gate.limit:g}"
        case GateKind.IMPROVEMENT:
            return f"gains more than {gate.limit:g} over its own base variant"
        case GateKind.ZERO_TOLERANCE:
            return "fails on no row"
        case GateKind.BUDGET:
            return f"is at most {gate.limit:g} ms" if gate.metric == LATENCY else f"is at most ${gate.limit:g} per 1,000"


def shows(gate: Gate, test: PairedTest, standing: Standing) -> str:
    """The bound that settles a tested gate, or both where it is open."""
    if gate.kind is GateKind.FLOOR:
        low, high = 1 + test.low, 1 + test.high
        return _between(standing, f"at least {low:.3f}", f"at most {high:.3f}", f"between {low:.3f} and {high:.3f}")
    if gate.kind is GateKind.IMPROVEMENT:
        either = f"the gain is between {test.low:+z.3f} and {test.high:+z.3f}"
        return _between(standing, f"gains {test.low:.3f} or more", f"gains {test.high:.3f} at most", either)
    # A loss is said as a loss; the evidence counts differences, candidate minus reference.
    most, least = 0.0 - test.low, max(0.0, 0.0 - test.high)
    least_met = f"loses {most:.3f} at most" if most >= 0 else f"gains {-most:.3f} or more"
    return _between(standing, least_met, f"loses {least:.3f} or more", f"loses between {least:.3f} and {most:.3f}")


def _between(standing: Standing, met: str, missed: str, is_open: str) -> str:
    return {Standing.MET: met, Standing.MISSED: missed, Standing.OPEN: is_open}[standing]


def _row(arm: Json, gates: tuple[Gate, ...], alpha: float) -> GateRow:
    found = {gate_of(value): value for value in (*arm["gates"], *arm["observed"])}
    tested = len(arm["gates"])
    cells = tuple(None if gate not in found else _cell(gate, found[gate], alpha, tested) for gate in gates)
    standing = Standing.MET if arm["passes"] else Standing.MISSED if arm["is_worse"] else Standing.OPEN
    return GateRow(arm["candidate"], arm["variant"], standing, _why(arm, standing, cells, alpha), cells)


def _why(arm: Json, standing: Standing, cells: tuple[GateCell | None, ...], alpha: float) -> str:
    if standing is Standing.MET:
        return "meets every gate"
    if standing is Standing.MISSED:
        missed = sum(cell is not None and cell.standing is Standing.MISSED for cell in cells)
        return f"misses {missed} of {sum(cell is not None for cell in cells)} gates"
    if all(cell is None or cell.standing is Standing.MET for cell in cells):
        p_value = f"p {arm['p_adjusted']:.3g} > {alpha:.3g}"
        return f"each gate is met by itself, but not once all variants are allowed for ({p_value})"
    return "shown neither to be good enough nor to be too weak"


def _cell(gate: Gate, found: Json, alpha: float, tested: int) -> GateCell:
    if gate.kind not in TESTED:
        return GateCell(Standing.MET if found["met"] else Standing.MISSED, _observed(gate, found))
    # Absent from decisions made before it was counted.
    known = {"clusters_effective": float(found["clusters"]), **found}
    test = PairedTest(**{field.name: known[field.name] for field in fields(PairedTest)})
    if not found["enough_clusters"]:
        few = f"{conversations(test)} are too few to judge"
        return GateCell(Standing.OPEN, few, found["score"], found["reference_score"], test)
    standing = Standing.OPEN
    if test.p_non_inferior <= alpha:
        standing = Standing.MET
    elif test.p_inferior <= alpha / tested:
        standing = Standing.MISSED
    return GateCell(standing, shows(gate, test, standing), found["score"], found["reference_score"], test)


def _observed(gate: Gate, found: Json) -> str:
    if gate.kind is GateKind.BUDGET:
        return _amount(gate, found["value"])
    failures = found["rows"] - round(found["value"] * found["rows"])
    if failures:
        return f"{failures} of {found['rows']} rows failed"
    return f"none of {found['rows']} rows failed, which still allows {found['at_most']:.1%}"


def _amount(gate: Gate, value: float) -> str:
    return milliseconds(value) if gate.metric == LATENCY else f"{usd(value)} per 1,000"
