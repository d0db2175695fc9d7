"""Asked: what a comparison and its decision were about, so that a reader can judge them a year later.

What belongs here: the facts, each a name and a sentence. A new one (another gold, a ceiling) is a line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.datasets.gold import Gold
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.report.gate_table import asks, gate_of
from flywheel_assets.core.rows import WorkloadType

_TYPES = {
    WorkloadType.TOOL_CALLING: "tool calling",
    WorkloadType.STRUCTURED: "structured (JSON) answers",
    WorkloadType.GENERIC: "text answers",
}

_GOLD: Mapping[str, str] = {
    Gold.CORRECTION: "people who corrected the teacher",
    Gold.ACCEPTED_ANSWERS: "accepted answers in the records",
    Gold.FEEDBACK: "feedback that confirmed the teacher",
    Gold.TEACHER: "the teacher alone",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was asked; `points` are shown as a list below `says`."""

    name: str
    says: str
    points: tuple[str, ...] = ()


def what_was_asked(comparison: Comparison, decision: Decision | None, compared_at: datetime | None) -> tuple[Fact, ...]:
    """The facts, in the order a reader asks for them."""
    when = "" if compared_at is None else f"compared on {compared_at:%d %B %Y, %H:%M} UTC, "
    versions = f"{when}dataset {comparison.dataset_version}, comparison {comparison.data_version()[:12]}"
    return (*_of_comparison(comparison), *(_of_decision(decision) if decision else ()), Fact("Evidence", versions))


def _of_comparison(comparison: Comparison) -> Iterator[Fact]:
    yield Fact("Workload", f"{comparison.workload}: {_TYPES[comparison.workload_type]}")
    rows, conversations = len(comparison.row_ids), len(set(comparison.clusters))
    yield Fact("Examined on", f"{rows:,} eval rows of {conversations:,} independent conversations, none of them trained on")
    yield Fact("Examined against", comparison.reference_note)
    if comparison.gold:
        yield Fact("What is right was said", ", ".join(f"{n:,} by {_GOLD[gold]}" for gold, n in comparison.gold.items()))
    candidates = list(dict.fromkeys(arm.candidate for arm in comparison.arms))
    variants = f"{len(comparison.arms)} variants, {len(comparison.evaluated)} of them evaluated"
    yield Fact("Candidates", f"{', '.join(candidates) or 'none'}; {variants}")


def _of_decision(decision: Decision) -> Iterator[Fact]:
    settings, look = decision.evidence["settings"], decision.evidence["look"]
    gates = [gate_of(found) for found in settings["gates"]]
    yield Fact(
        "Gates",
        "from flywheel.yaml, or the defaults of the type; a variant must meet every one",
        tuple(f"{gate.label} {asks(gate)}" for gate in gates),
    )
    risk = f"at most {settings['alpha']:.3g} (alpha), over all variants together"
    yield Fact("Risk of promoting a model that is not good enough", risk)
    if registered := settings["looks"]:
        now = f"this is look {look['number']}, which spends {look['alpha']:.3g} of it" if look else "none of them is due now"
        counts = ", ".join(f"{count:,}" for count in registered)
        yield Fact("Looks", f"registered at {counts} eval rows; {now}")
    else:
        number = f"this is decision {look['number']} on this workload" if look else ""
        yield Fact("Looks", f"none registered: every decision is taken at the full error rate; {number}")
