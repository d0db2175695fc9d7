"""Needs: what it takes until a verdict is settled, in eval rows, in conversations and in records to ingest.

The one place that answers it: the decision, `flywheel status`, `flywheel plan` and the report all show what stands here.
What belongs here: gates that were judged. What does not: the arithmetic of rows (`core.sample_size`), and how large the
first evaluation set should be, before anything was evaluated (`core.exam_size`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.gate_findings import ArmFinding, TestedGate
from flywheel_assets.core.gates import rows_of
from flywheel_assets.core.looks import Waiting
from flywheel_assets.core.rows import Json
from flywheel_assets.core.sample_size import rows_to_settle


@dataclass(frozen=True, slots=True)
class GateNeed:
    """What one gate takes.

    `rows` and `conversations` are those it has now (conversations at what they are worth), `missing_rows` and
    `missing_conversations` how many more would probably settle it; both are 0 where it is settled. `difference` (-1..1) and
    `discordance` (0..1) are what that is planned from: `observed`, or the planning values of `decision`. `missing_*` are
    None where no number will do, because the candidate is planned to lose the margin or more.
    """

    gate: str
    margin: float
    difference: float
    discordance: float
    observed: bool
    rows: int
    conversations: float
    missing_rows: int | None
    missing_conversations: int | None

    def to_json(self) -> Json:
        """A JSON-ready form with the fields' names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Supply:
    """Where eval rows come from: `share` of the records (0..1) may be evaluated on, `eval_side` rows are there, and `drawn`
    of them were drawn; `eval_size` is the most that is.
    """

    share: float
    eval_side: int
    drawn: int
    eval_size: int

    @classmethod
    def of(cls, comparison: Comparison) -> Supply | None:
        """The supply behind a comparison; None where it was made before that was recorded."""
        return cls.of_exam(comparison.exam, len(comparison.row_ids))

    @classmethod
    def of_exam(cls, exam: Json, drawn: int) -> Supply | None:
        """The supply of `core.datasets.exam.Exam` as JSON; None where nothing was recorded."""
        if not exam.get("share_of_records"):
            return None
        return cls(exam["share_of_records"], drawn + exam["not_drawn"], drawn, exam["eval_size"])

    @property
    def unused(self) -> int:
        """Rows that could be evaluated on and are not."""
        return max(0, self.eval_side - self.drawn)

    def records_for(self, rows: int) -> int:
        """How many more records to ingest until the eval side holds `rows`, but for one time in forty.

        Whole conversations fall on it by chance, so a little more is asked for than the share says: two standard errors,
        for rows that come in twos.
        """
        missing = max(0, rows - self.eval_side)
        return math.ceil((missing + 2.0 * math.sqrt(2.0 * missing * (1.0 - self.share))) / self.share)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a verdict takes in all: `eval_rows` more, of which `unused` lie on the eval side already, and `records` more.

    `eval_size` is what `split.eval_size` must be raised to for it, None where it is large enough. `records` is None where it
    is not known how records become eval rows.
    """

    gates: tuple[GateNeed, ...]
    eval_rows: int
    unused: int
    records: int | None
    eval_size: int | None

    def to_json(self) -> Json:
        """A JSON-ready form with the fields' names."""
        return {**asdict(self), "gates": [need.to_json() for need in self.gates]}

    def sentences(self) -> tuple[str, ...]:
        """What to do, for the person who must."""
        if self.eval_rows == 0:
            return ()
        said = []
        if self.eval_size is not None:
            lying = f": {self.unused:,} that could be evaluated on lie unused" if self.unused else ""
            said.append(f"Set split.eval_size to {self.eval_size:,} or more{lying}.")
        if self.records:
            said.append(f"Ingest about {self.records:,} more records.")
        return tuple(said)


def needs_of(gates: Sequence[GateNeed], total_rows: int, supply: Supply | None) -> Needs:
    """What all gates take together, where `total_rows` eval rows are drawn now.

    New rows come in the proportions of the old ones, so the gate that is furthest from settled decides: a gate on a tenth of
    the rows takes ten eval rows for one of its own.
    """
    wanted = max((_in_eval_rows(need, total_rows) for need in gates), default=0)
    return rows_needed(wanted, total_rows, supply, gates)


def needs_until(waiting: Waiting, total_rows: int, supply: Supply | None) -> Needs:
    """What it takes until the next registered look; nothing where no number of rows brings one."""
    wanted = 0 if waiting.next_rows is None else max(1, waiting.next_rows - total_rows)
    return rows_needed(wanted, total_rows, supply)


def rows_needed(wanted: int, total_rows: int, supply: Supply | None, gates: Sequence[GateNeed] = ()) -> Needs:
    """What it takes to have `wanted` more eval rows."""
    if supply is None:
        return Needs(tuple(gates), wanted, 0, None, None)
    goal = total_rows + wanted
    return Needs(
        gates=tuple(gates),
        eval_rows=wanted,
        unused=supply.unused,
        records=supply.records_for(goal) if wanted else 0,
        eval_size=goal if wanted and goal > supply.eval_size else None,
    )


def gate_needs(
    comparison: Comparison, finding: ArmFinding, *, arms: int, alpha: float, power: float, min_clusters: int
) -> tuple[GateNeed, ...]:
    """What each tested gate of an arm takes, where `arms` compete for `alpha`: at the strictest level Holm may ask for, and
    with the power shared out over gates on different rows, because all must pass."""
    tested = len(finding.gates)
    groups = len({rows_of(comparison, found.gate).tobytes() for found in finding.gates})
    return tuple(
        _gate_need(
            found,
            level=alpha / arms,
            keep_level=alpha / tested,
            arms=arms,
            power=1.0 - (1.0 - power) / groups,
            min_clusters=min_clusters,
        )
        for found in finding.gates
    )


def closest(findings: Sequence[ArmFinding]) -> ArmFinding:
    """The arm (of at least one) that is nearest to meeting every gate; one shown to miss a gate only where all are."""
    return max(findings, key=lambda finding: (not finding.is_worse, finding.distance))


def _gate_need(
    found: TestedGate, *, level: float, keep_level: float, arms: int, power: float, min_clusters: int
) -> GateNeed:
    test = found.test
    conversations = math.ceil(max(0.0, min_clusters - test.clusters_effective))
    rows = math.ceil(max(0.0, min_clusters / test.clusters_effective - 1.0) * test.n)
    # Where the rows tell already, conversations are all that lacks.
    if min(test.p_non_inferior / level, test.p_inferior / keep_level) > 1.0:
        worth = test.n_effective / test.n
        total = rows_to_settle(
            n=max(1, round(test.n_effective)),
            difference=test.difference,
            discordance=test.discordance,
            margin=found.gate.margin,
            alpha=level,
            power=power,
        )
        rows = max(rows, 1, math.ceil(total / worth) - test.n)
        conversations = max(conversations, math.ceil(rows * test.clusters_effective / test.n))
    return GateNeed(
        gate=found.gate.label,
        margin=found.gate.margin,
        difference=test.difference,
        discordance=test.discordance,
        observed=True,
        rows=test.n,
        conversations=test.clusters_effective,
        missing_rows=rows,
        missing_conversations=conversations,
    )


def _in_eval_rows(need: GateNeed, total_rows: int) -> int:
    if not need.missing_rows or not need.rows:
        return 0
    return math.ceil(need.missing_rows * total_rows / need.rows)
