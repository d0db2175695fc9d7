"""The view: everything the report shows of a comparison and its decision, as plain data.

What belongs here: the parts put together, the verdict in one sentence and the few figures beside it. What does not: how a
part is made (a module each) and markup (`html`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision, Verdict
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.report.amounts import milliseconds, usd
from flywheel_assets.core.report.asked import Fact, what_was_asked
from flywheel_assets.core.report.caveats import caveats
from flywheel_assets.core.report.examples import Losses, arm_in_focus
from flywheel_assets.core.report.gate_table import GateTable, gate_table_of
from flywheel_assets.core.report.heat_map import HeatMap, heat_map_of
from flywheel_assets.core.report.leaderboard import Leaderboard, Place, leaderboard_of
from flywheel_assets.core.report.outlook import Outlook, outlook_of
from flywheel_assets.core.report.scatter import Scatter, cost_against_quality, latency_against_quality

_LABELS = {Verdict.PROMOTE: "promote", Verdict.KEEP: "keep the teacher", Verdict.INCONCLUSIVE: "inconclusive"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number worth the top of the page: what it is of, the number, and what it is to be read beside."""

    name: str
    value: str
    beside: str


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report. `verdict`, `gates` and `outlook` are None where nothing was decided yet.

    `unread` says which share of the turns is text that no gate reads; None where all of it is read.
    `verdict` is one of promote, keep, inconclusive, and `verdict_label` its words; `focus` names the arm that `losses` and
    `outlook` are about.
    """

    workload: str
    verdict: str | None
    verdict_label: str
    headline: str
    reasons: tuple[str, ...]
    unread: str | None
    figures: tuple[Figure, ...]
    asked: tuple[Fact, ...]
    leaderboard: Leaderboard
    gates: GateTable | None
    heat_map: HeatMap
    pictures: tuple[Scatter, ...]
    focus: str | None
    losses: tuple[Losses, ...]
    outlook: Outlook | None
    holes: tuple[Place, ...]
    caveats: tuple[str, ...]

    @property
    def has_ceiling(self) -> bool:
        """Whether the teacher was asked once more."""
        return any(line.kind == "ceiling" for column in self.leaderboard.columns for line in column.lines)


def report_of(
    comparison: Comparison,
    decision: Decision | None = None,
    losses: Sequence[Losses] = (),
    *,
    compared_at: datetime | None = None,
    max_age_days: int | None = None,
) -> Report:
    """The report of a comparison, with its decision where there is one.

    `losses` are those of `examples.arm_in_focus`. `compared_at` (UTC) dates the evidence, `max_age_days` says how long a
    decision holds. Equal input gives an equal report: it has no clock of its own.
    """
    focus = arm_in_focus(comparison, decision)
    board = leaderboard_of(comparison, decision)
    gates = gate_table_of(decision, [place.label for place in board.places]) if decision else None
    outlook = None
    if decision and gates:
        outlook = outlook_of(comparison, decision, gates, focus, max_age_days=max_age_days)
    return Report(
        workload=comparison.workload,
        verdict=decision.verdict.value if decision else None,
        verdict_label=_LABELS[decision.verdict] if decision else "not decided",
        headline=_headline(comparison, decision, focus),
        reasons=decision.reasons if decision else (),
        # Absent from decisions made before it was said.
        unread=(decision.evidence.get("unread") or "").replace("`", "") or None if decision else None,
        figures=tuple(_figures(comparison, focus)),
        asked=what_was_asked(comparison, decision, compared_at),
        leaderboard=board,
        gates=gates,
        heat_map=heat_map_of(comparison),
        pictures=(cost_against_quality(comparison, decision), latency_against_quality(comparison, decision)),
        focus=focus.label if focus else None,
        losses=tuple(losses),
        outlook=outlook,
        holes=tuple(place for place in board.places if not place.is_ok),
        # The sentences are shared with Markdown, where backticks mean something.
        caveats=tuple(caveat.replace("`", "") for caveat in caveats(comparison)),
    )


def _headline(comparison: Comparison, decision: Decision | None, focus: Arm | None) -> str:
    evaluated = f"{len(comparison.evaluated)} of {len(comparison.arms)} variants were evaluated"
    if decision is None:
        return f"{evaluated}; the decision says what follows from it."
    match decision.verdict:
        case Verdict.PROMOTE if decision.evidence["look"] is None:
            return decision.reasons[0]
        case Verdict.PROMOTE:
            return f"{decision.candidate} ({decision.variant}) may replace the teacher: it meets every registered gate."
        case Verdict.KEEP:
            return "Keep the teacher: every evaluated variant is shown to miss a gate."
        case Verdict.INCONCLUSIVE:
            if decision.evidence["look"] is None:
                return "Not decided now: no registered look is due."
            who = focus.label if focus else "a variant"
            return (
                f"Not settled yet: about {decision.needed_rows:,} more eval rows would probably show whether {who} may "
                "replace the teacher."
            )


def _figures(comparison: Comparison, focus: Arm | None) -> Iterator[Figure]:
    report = focus.report if focus else None
    if focus is None or report is None:
        return
    metric = MAIN_METRIC[comparison.workload_type]
    if metric in report.scores and metric in comparison.reference_scores:
        score = report.scores[metric]
        interval = f"95% interval {score.low:.3f} to {score.high:.3f} on {score.n:,} rows"
        yield Figure(metric, f"{score.value:.3f}", interval)
    cost, teacher = report.cost_per_1k_usd, comparison.reference_cost_per_1k_usd
    if cost is not None:
        beside = "what the teacher costs is not known"
        if teacher:
            change = 100 * (cost / teacher - 1)
            beside = f"{abs(change):.0f}% {'less' if change < 0 else 'more'} than the teacher's {usd(teacher)}"
        yield Figure("1,000 requests cost", usd(cost), beside)
    if report.latency_ms["p95"] is not None and report.latency_ms["p50"] is not None:
        slow = f"half of them within {milliseconds(report.latency_ms['p50'])}"
        if (logged := comparison.reference_latency_ms.get("p95")) is not None:
            slow += f"; the teacher's, as logged in production, within {milliseconds(logged)}"
        yield Figure("95 of 100 answers come within", milliseconds(report.latency_ms["p95"]), slow)
    yield Figure("Examined on", f"{len(comparison.row_ids):,} rows", f"of {len(set(comparison.clusters)):,} conversations")
