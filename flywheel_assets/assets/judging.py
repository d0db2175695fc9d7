"""Judging, as a part of an evaluation asset: which columns its judge fills, and the check on what came of it.

What belongs here: the seam between evaluation assets and `resources.judge`. What does not: asking, and what verdicts mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from flywheel_assets.assets.publishing import CheckOutcome, Refusal, Work
from flywheel_assets.assets.specs import check_spec
from flywheel_assets.core.judge import JUDGE_COLUMNS, Judged, LabelledAnswer, Rubric
from flywheel_assets.core.rows import EvalRow, Json, Prediction, WorkloadType
from flywheel_assets.resources.inputs import judged, registered_gates
from flywheel_assets.resources.judge.choice import judge_columns, read_labels
from flywheel_assets.resources.judge.judging import JudgeOrder, judge_answers
from flywheel_assets.resources.platform import Platform
from flywheel_assets.resources.telemetry import PhaseKind
from flywheel_assets.settings import JudgeSettings, Settings

CHECK = "judged"
_READABLE = (
    "At most judge.max_unparsable_share of the judged rows have no readable verdict. If it fails: the message quotes the "
    "first; take a judge that keeps to the rubric (docs/judge.md)."
)
_NOTHING = Judged({}, {}, 0, 0)
_DEFINITIONS: Mapping[Rubric, str] = {
    Rubric.TOOL_CALL: "1 if the judge says that the calls do what the reference's do; null where no call is expected.",
    Rubric.SIMILARITY: "The judge's 1 to 10 for agreement with the reference, as (score - 1) / 9; null for calls.",
    Rubric.PAIRWISE: "1 if the judge prefers the answer to the reference in both orders, 0 the reference, 0.5 neither.",
}


def judge_checks(settings: Settings, name: str) -> list[dg.AssetCheckSpec]:
    """The check of an evaluation's judge, where any workload has one."""
    if not any(settings.judge_for(slug).is_configured for slug in ("", *settings.workloads)):
        return []
    return [check_spec(CHECK, name, _READABLE, settings)]


@dataclass(frozen=True, slots=True)
class JudgeBench:
    """The judge of one evaluation, its columns (none: nothing is judged) and the labels that calibrate it."""

    settings: JudgeSettings
    columns: Sequence[Rubric]
    labels: Sequence[LabelledAnswer]
    has_check: bool
    workload_type: WorkloadType

    @property
    def definitions(self) -> dict[str, str]:
        """Its columns in words, by name."""
        return {column.value: _DEFINITIONS[column] for column in self.columns}

    @property
    def summary(self) -> Json | None:
        """Who judged what, for the artifact's summary."""
        return {"judge": self.settings.name, "columns": list(self.definitions)} if self.columns else None

    def judge(self, work: Work, platform: Platform, rows: Sequence[EvalRow], predictions: Sequence[Prediction]) -> Judged:
        """What the judge makes of the answers; raises JudgeError as `judge_answers` does."""
        if not self.columns:
            return _NOTHING
        order = JudgeOrder(
            settings=work.flywheel.settings,
            workload=work.partition.workload,
            workload_type=self.workload_type,
            columns=self.columns,
            rows=rows,
            predictions=predictions,
            labels=self.labels,
            owner=work.context.run_id,
            say=work.context.log.info,
        )
        with work.watch.part(PhaseKind.JUDGE, "judge") as facts:
            found = judge_answers(order, platform)
            facts |= {"judge": self.settings.name, "asked": found.asked, "unparsable": found.unparsable, **found.aggregates}
        return found

    def meaning(self, found: Judged) -> Json | None:
        """What of the verdicts belongs into the evaluation's data version."""
        return found.meaning() if self.columns else None

    def checks(self, found: Judged) -> list[CheckOutcome]:
        """The check `judged`, where it is declared."""
        if not self.has_check:
            return []
        accepted = self.settings.max_unparsable_share
        message = f"{found.unparsable} of {found.asked} judged rows have no readable verdict ({accepted:.0%} is accepted)"
        message += (
            f"; the first said {found.first_unparsable!r}. Take a judge that keeps to the rubric (docs/judge.md)."
            if found.unparsable
            else "."
        )
        return [CheckOutcome(CHECK, found.unparsable_share <= accepted, message)]


def judge_bench(work: Work, name: str, kind: WorkloadType) -> JudgeBench:
    """The judge of an evaluation, made ready as far as that costs nothing.

    Raises Refusal for a gate on a judge column that nothing will fill, JudgeError for labels that cannot be read.
    """
    settings, workload = work.flywheel.settings, work.partition.workload
    columns = judge_columns(settings, workload, kind)
    for gate in registered_gates(settings, workload):
        if gate.metric in JUDGE_COLUMNS and gate.metric not in columns:
            filled = ", ".join(columns) or "none"
            raise Refusal(
                f"workload '{workload}', gate '{gate.label}': no judge fills this column of a {kind} workload (filled: "
                f"{filled}). See `judge`, `judge.pairwise` and `evaluation.tool_eval_type` in docs/judge.md, or take the "
                "gate out."
            )
    if not judged(settings, name, workload):
        columns = ()
    labels = read_labels(settings, workload) if columns else []
    return JudgeBench(settings.judge_for(workload), columns, labels, bool(judge_checks(settings, name)), kind)
