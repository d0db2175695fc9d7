"""Decision text: what the evidence says, in sentences a person reads first.

What belongs here: wording. Every number comes from a finding; what follows from them is said in `core.decisions`.
"""

from __future__ import annotations

from flywheel_assets.core.comparison import Arm
from flywheel_assets.core.gate_findings import ObservedGate, TestedGate
from flywheel_assets.core.gates import LATENCY, GateKind
from flywheel_assets.core.statistics import PairedTest


def tested(arm: Arm, found: TestedGate) -> str:
    """One tested gate of one arm: score, what it is held against, the bounds and what was asked for."""
    test, gate = found.test, found.gate
    between = f"between {test.low:+z.3f} and {test.high:+z.3f}"
    seen = f"{arm.label}: {gate.label} is {found.score:.3f}"
    match gate.kind:
        case GateKind.FLOOR:
            said = (
                f"{seen} on {test.n} rows; it lies between {1 + test.low:.3f} and {1 + test.high:.3f}, and more than "
                f"{gate.limit:g} is asked for"
            )
        case GateKind.IMPROVEMENT:
            said = (
                f"{seen} against {found.reference_score:.3f} of its base variant on {test.n} rows; the difference lies "
                f"{between}, and a gain of more than {gate.limit:g} is asked for"
            )
        case _:
            said = (
                f"{seen} against {found.reference_score:.3f} on {test.n} rows; the difference lies {between}, and a loss of "
                f"less than {gate.limit:g} is accepted"
            )
    return said + ("." if found.enough_clusters else f", but {conversations(test)} are too few to judge.")


def conversations(test: PairedTest) -> str:
    """How many conversations a test stands on, and what they are worth where some are much longer than others."""
    worth = f"{test.clusters_effective:.0f}"
    if worth == str(test.clusters):
        return f"{test.clusters} independent conversations"
    return f"{test.clusters} conversations of uneven length, worth {worth} equal ones,"


def observed(arm: Arm, found: ObservedGate) -> str:
    """One observed gate of one arm: the value and the limit, or the failures where none is tolerated."""
    gate = found.gate
    if gate.kind is GateKind.ZERO_TOLERANCE:
        failures = found.rows - round(found.value * found.rows)
        if failures:
            return f"{arm.label}: {gate.label} failed on {failures} of {found.rows} rows, and none is tolerated."
        return f"{arm.label}: {gate.label} failed on none of {found.rows} rows; {found.at_most:.1%} may fail all the same."
    value, limit = (
        (f"{found.value:,.0f} ms", f"{gate.limit:,.0f} ms")
        if gate.metric == LATENCY
        else (f"${found.value:,.4g}", f"${gate.limit:,.4g}")
    )
    what = "95 of 100 answers come within" if gate.metric == LATENCY else "1,000 requests cost"
    return f"{arm.label}: {what} {value}; at most {limit} is accepted."
