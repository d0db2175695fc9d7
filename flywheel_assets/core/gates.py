"""Gates: the conditions a candidate must meet, as they are registered before anybody looks at the scores.

What belongs here: what a gate says, which gates a workload has by default, and whether configured ones can be judged. What
does not: judging them (`core.gate_findings`) and the verdict over all of it (`core.decisions`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.judge import JUDGE_COLUMNS, Rubric
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.rows import Json, Variant, WorkloadType

DEFAULT_MARGIN = 0.05
# The loss over all traffic (0..1) that a default gate excludes at the finest, when it is registered; and at the most before
# it is narrowed, where its class of answers has become that much more frequent since.
_LEAST_OF_TRAFFIC, _MOST_OF_TRAFFIC = 0.01, 0.04
_MARGINS = (DEFAULT_MARGIN, 0.1, 0.2, 0.5)
_BESIDE: Mapping[WorkloadType, tuple[str, ...]] = {
    WorkloadType.TOOL_CALLING: ("no_call", "answered", "json_match"),
    # A mean over fields alone lets a model pass that spoils one field of every tenth document.
    WorkloadType.STRUCTURED: ("schema_valid", "exact_match"),
    WorkloadType.GENERIC: ("json_match",),
}
_OF_CALLS = (MAIN_METRIC[WorkloadType.TOOL_CALLING], Rubric.TOOL_CALL.value)
LATENCY, COST = "latency_p95_ms", "cost_per_1k_usd"


class InvalidEvidence(Exception):
    """The comparison cannot carry any verdict; the message says why and what to do."""


class InvalidGate(ValueError):
    """A configured gate cannot be judged; the message names it and what is accepted."""


class GateKind(StrEnum):
    """What a gate asks for. The first three are tests with an error rate; the others are plain observations."""

    NON_INFERIOR = "non_inferior"
    FLOOR = "floor"
    IMPROVEMENT = "improvement"
    ZERO_TOLERANCE = "zero_tolerance"
    BUDGET = "budget"


class Against(StrEnum):
    """What a non-inferiority gate compares with.

    reference: the teacher's logged answers. teacher: the teacher asked once more, which may disagree with itself. incumbent:
    the small model that serves now; where there is none, or another model of that name was trained since, the reference,
    which asks for more.
    """

    REFERENCE = "reference"
    TEACHER = "teacher"
    INCUMBENT = "incumbent"


_LIMITS = {GateKind.NON_INFERIOR: "margin", GateKind.FLOOR: "floor", GateKind.IMPROVEMENT: "improvement"}
TESTED = (GateKind.NON_INFERIOR, GateKind.FLOOR, GateKind.IMPROVEMENT)


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition on `metric` (a score column, or `latency_p95_ms`, `cost_per_1k_usd`).

    `limit` is, by kind: the loss against the reference that must be excluded (0..1); the mean that must be exceeded
    (0..1); the gain over the candidate's own base variant that must be exceeded (0..1); unused (0) for zero tolerance; the
    budget in milliseconds or USD. `suite` narrows it to the rows with one label, as `turns=multi_turn`; `against` says what
    non-inferior means.
    """

    metric: str
    limit: float
    kind: GateKind = GateKind.NON_INFERIOR
    suite: str | None = None
    against: Against = Against.REFERENCE

    @property
    def margin(self) -> float:
        """The margin of the paired test behind it: against the reference, a perfect score, or the base variant."""
        return {GateKind.FLOOR: 1.0 - self.limit, GateKind.IMPROVEMENT: -self.limit}.get(self.kind, self.limit)

    @property
    def label(self) -> str:
        """How a person names it."""
        narrowed = f"{self.metric} ({self.suite})" if self.suite else self.metric
        return narrowed if self.against is Against.REFERENCE else f"{narrowed} against the {self.against}"

    def to_json(self) -> Json:
        """A JSON-ready form with the fields' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Gate:
        """The gate in a piece of evidence that `to_json` has a part in; what an older release left out is its default."""
        named = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        against = Against(value.get("against", Against.REFERENCE))
        return cls(**{**named, "kind": GateKind(value.get("kind", GateKind.NON_INFERIOR)), "against": against})


def gates_of_type(workload_type: WorkloadType, judged: Collection[str] = ()) -> tuple[Gate, ...]:
    """The gates of a workload type where none are configured: non-inferior by a margin of 0.05 each, before `for_shares`.

    tool_calling: `function_name_and_args`, and on the rows without a call `no_call` and `answered`; structured: `field_f1`,
    `schema_valid` and `exact_match`; generic: `f1`. For tool calling, what is among the columns `judged` counts:
    `judge_tool_call` takes the place of the first, and `judge_similarity` is asked for beside the others.
    """
    main = Rubric.TOOL_CALL.value if Rubric.TOOL_CALL in judged else MAIN_METRIC[workload_type]
    read = workload_type is WorkloadType.TOOL_CALLING and Rubric.SIMILARITY in judged
    beside = (*_BESIDE[workload_type], *([Rubric.SIMILARITY.value] if read else []))
    return tuple(Gate(metric, DEFAULT_MARGIN) for metric in (main, *beside))


def default_gates(comparison: Comparison) -> tuple[Gate, ...]:
    """`gates_of_type` for what the rows hold, with the margins that were registered with the exam.

    Where the answers are a closed set of labels, `exact_match` is asked for beside `f1`: words that labels share, and signs
    that a comparison of words drops, hide a wrong one. Where a tool-calling workload hardly calls, its texts are read.
    """
    gates = [gate for gate in gates_of_type(comparison.workload_type, comparison.reference) if _rows(comparison, gate)]
    if comparison.workload_type is WorkloadType.GENERIC and _has_labels(comparison):
        gates.append(Gate("exact_match", DEFAULT_MARGIN))
    chosen = _with_margins(comparison, gates)
    if comparison.workload_type is WorkloadType.TOOL_CALLING and not any(gate.metric in _OF_CALLS for gate in chosen):
        chosen += _with_margins(comparison, [gate for gate in [Gate("f1", DEFAULT_MARGIN)] if _rows(comparison, gate)])
    return chosen


def _with_margins(comparison: Comparison, gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Default gates with the margins of `Exam.default_margins`; 0.05 each where the exam is older than that.

    A registered margin holds as long as it does not let much more of the traffic be lost than it did then.
    """
    registered = comparison.exam.get("default_margins")
    if registered is None:
        return tuple(gates)
    shares = {gate.label: _rows(comparison, gate) / max(1, len(comparison.row_ids)) for gate in gates}
    chosen: list[Gate] = []
    for gate in gates:
        # Without a gate all of the class may be lost.
        margin = registered.get(gate.metric, 1.0) or 1.0
        holds = gate.metric in registered and (margin <= DEFAULT_MARGIN or margin * shares[gate.label] <= _MOST_OF_TRAFFIC)
        chosen += [replace(gate, limit=margin)] if holds else for_shares([gate], shares)
    return tuple(gate for gate in chosen if gate.limit < 1.0)


def _rows(comparison: Comparison, gate: Gate) -> int:
    """How many rows a gate applies to; none where the comparison was made before its column was introduced."""
    return int(rows_of(comparison, gate).sum()) if gate.metric in comparison.reference else 0


def _has_labels(comparison: Comparison) -> bool:
    """Whether the references choose from a closed set of labels, as `core.aggregates` tells of every evaluated arm."""
    return "exact_match" in comparison.reference and any(
        arm.report is not None and "macro_f1" in arm.report.aggregates for arm in comparison.evaluated
    )


def for_shares(gates: Sequence[Gate], shares: Mapping[str, float]) -> tuple[Gate, ...]:
    """Default gates with margins that fit the share of the rows (0..1, by label) each applies to.

    Five points of a class of answers that is a fiftieth of the traffic are a thousandth of the traffic: to show that takes
    ten thousands of rows, and a perfect model would never be promoted. So no default gate asks for less than one point of
    all traffic; a class that is less than a fiftieth of the traffic has no gate.
    """
    return tuple(
        replace(gate, limit=max(gate.limit, margin))
        for gate in gates
        for margin in [m for m in _MARGINS if m * shares.get(gate.label, 0.0) >= _LEAST_OF_TRAFFIC - 1e-9][:1]
    )


def rare_note(comparison: Comparison, registered: Sequence[Gate]) -> str | None:
    """What a reader must know where a class of answers is too rare for a default gate; None where every one has its gate."""
    kept = {gate.metric for gate in default_gates(comparison)}
    rare = [
        gate
        for gate in gates_of_type(comparison.workload_type, comparison.reference)
        if gate.metric not in kept and _rows(comparison, gate)
    ]
    if registered or not rare:
        return None
    rows = np.logical_or.reduce([rows_of(comparison, gate) for gate in rare])
    names = ", ".join(f"`{gate.metric}`" for gate in rare)
    return (
        f"{int(rows.sum())} of {len(comparison.row_ids)} eval rows are too few for a default gate on {names}: nothing was "
        "asked of the models there. Register one in decision.gates if such turns matter."
    )


def checked_gates(comparison: Comparison, gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The configured gates, or the default ones. InvalidGate and InvalidEvidence as in `core.decisions.decide`."""
    chosen = tuple(gates) or default_gates(comparison)
    if not chosen:
        raise InvalidEvidence(f"workload '{comparison.workload}': the eval set has no row that a gate applies to.")
    for index, gate in enumerate(chosen):
        _check(comparison, gate)
        if any(_asks(gate) == _asks(other) for other in chosen[:index]):
            raise InvalidGate(
                f"{_where(comparison, gate)}: named twice in decision.gates. Keep the one with the limit you mean."
            )
    if not any(gate.kind in (GateKind.NON_INFERIOR, GateKind.FLOOR) for gate in chosen):
        raise InvalidGate(
            f"workload '{comparison.workload}': no gate asks for quality. Add one with a `margin` or a `floor`: cheaper, "
            "faster or better than before is not yet good enough."
        )
    return chosen


def _asks(gate: Gate) -> tuple[str, GateKind, str | None, Against]:
    """What a gate is about, whatever its limit."""
    return gate.metric, gate.kind, gate.suite, gate.against


def _check(comparison: Comparison, gate: Gate) -> None:
    where = _where(comparison, gate)
    if gate.kind is GateKind.BUDGET:
        if gate.metric not in (LATENCY, COST) or gate.suite or gate.limit <= 0:
            raise InvalidGate(f"{where}: a budget is {LATENCY} or {COST}, over all rows, and above 0.")
        return
    if gate.metric not in comparison.reference:
        known = ", ".join(comparison.reference)
        hint = " A judge fills such columns where one is set (docs/judge.md)." if gate.metric in JUDGE_COLUMNS else ""
        raise InvalidGate(f"{where}: no such metric here. Metrics of {comparison.workload_type} workloads: {known}.{hint}")
    least = 0.0 if gate.kind is GateKind.IMPROVEMENT else 1e-9
    if gate.kind in TESTED and not least <= gate.limit < 1:
        raise InvalidGate(f"{where}: the {_LIMITS[gate.kind]} is {gate.limit}; it must lie between 0 and 1.")
    if gate.suite is not None:
        _check_suite(comparison, gate.suite, where)
    if not rows_of(comparison, gate).any():
        raise InvalidEvidence(f"{where}: it applies to no row of the eval set. Take the gate out, or ingest such records.")
    if gate.against is Against.TEACHER and gate.metric not in comparison.teacher:
        raise InvalidEvidence(
            f"{where}: the teacher was not asked these rows once more. Give `teacher.model` its endpoint in flywheel.yaml, "
            "see that `evals/teacher` is made, or take `against` out."
        )
    if gate.kind is GateKind.IMPROVEMENT:
        bare = {arm.candidate for arm in comparison.evaluated if arm.variant is Variant.BASE}
        alone = sorted({arm.candidate for arm in comparison.evaluated} - bare)
        if alone:
            raise InvalidEvidence(
                f"{where}: an improvement is measured against the base variant, and that of {', '.join(alone)} was not "
                "evaluated. Mend that and run the workload again."
            )


def _check_suite(comparison: Comparison, text: str, where: str) -> None:
    suite, _, label = text.partition("=")
    if suite not in comparison.suites or not label:
        known = ", ".join(comparison.suites) or "none"
        raise InvalidGate(f"{where}: `suite` is written suite=label, and the suites are: {known}.")


def _where(comparison: Comparison, gate: Gate) -> str:
    return f"workload '{comparison.workload}', gate '{gate.label}'"


def check_evidence(comparison: Comparison, gates: Sequence[Gate], max_error_share: float) -> None:
    """Raise InvalidEvidence where no verdict could be sound, whatever the scores are."""
    where = f"workload '{comparison.workload}'"
    if not comparison.evaluated:
        holes = "; ".join(f"{arm.label}: {arm.state}, {arm.reason}" for arm in comparison.holes) or "there are no candidates"
        raise InvalidEvidence(f"{where}: no variant was evaluated ({holes}). Mend that and run the workload again.")
    for arm in comparison.evaluated:
        if arm.row_ids != comparison.row_ids:
            odd = len(set(arm.row_ids) ^ set(comparison.row_ids))
            raise InvalidEvidence(
                f"{where}: {arm.label} was asked other rows than the eval set {comparison.dataset_version} holds "
                f"({odd} differ). Evaluate it again on this dataset version."
            )
        share = float(arm.errored.mean())
        if share > max_error_share:
            raise InvalidEvidence(
                f"{where}: {int(arm.errored.sum())} of {len(arm.row_ids)} rows of {arm.label} errored ({share:.1%}; "
                f"{max_error_share:.1%} is accepted). Look at the endpoint, and evaluate again."
            )
        lacking = [gate.metric for gate in gates if gate.kind is not GateKind.BUDGET and gate.metric not in arm.scores]
        if lacking:
            raise InvalidEvidence(f"{where}: {arm.label} has no scores for {', '.join(lacking)}. Evaluate it again.")


def rows_of(comparison: Comparison, gate: Gate) -> NDArray[np.bool_]:
    """The rows a gate applies to, as a mask over the eval set: those of its suite where the reference has a score."""
    applies: NDArray[np.bool_] = ~np.isnan(comparison.reference[gate.metric])
    if gate.suite is None:
        return applies
    suite, _, label = gate.suite.partition("=")
    labelled = np.array([found == label for found in comparison.suites[suite]], dtype=bool)
    applies &= labelled
    return applies
