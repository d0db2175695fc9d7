"""Markdown: a comparison and its decision as the text that Dagster's UI and a terminal show.

What belongs here: sentences, tables and a few real rows. Every number comes from the comparison or the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Decision, Verdict
from flywheel_assets.core.markdown_text import harmless, harmless_cell, harmless_code
from flywheel_assets.core.metrics import MAIN_METRIC
from flywheel_assets.core.predictions import REPORTED_SUITES, Score
from flywheel_assets.core.report.caveats import caveats
from flywheel_assets.core.report.examples import Example, arm_in_focus

_LONGEST = 400
_HEADLINE = {
    Verdict.PROMOTE: "promote",
    Verdict.KEEP: "keep the teacher",
    Verdict.INCONCLUSIVE: "inconclusive",
}


def to_markdown(comparison: Comparison, decision: Decision | None = None, examples: Sequence[Example] = ()) -> str:
    """The whole report. `examples` are those of the arm in focus, from `examples.losing_examples`."""
    text = "\n".join(_lines(comparison, decision, examples)).rstrip() + "\n"
    # A model can write half a surrogate pair, which no file can hold.
    return text.encode("utf-8", "replace").decode()


def _lines(comparison: Comparison, decision: Decision | None, examples: Sequence[Example]) -> Iterator[str]:
    yield f"# {harmless(comparison.workload)}: who may answer it"
    yield ""
    if decision:
        winner = f" {harmless(decision.candidate)} ({decision.variant})" if decision.candidate else ""
        more = f", about {decision.needed_rows} more eval rows needed" if decision.needed_rows else ""
        yield f"**Verdict: {_HEADLINE[decision.verdict]}{winner}{more}.**"
        yield ""
        yield from (f"- {harmless(reason)}" for reason in decision.reasons)
        yield ""
    yield "## Leaderboard"
    yield ""
    yield from _leaderboard(comparison)
    yield ""
    yield "Each cell is a mean, its 95% interval and, in brackets, the rows the metric applies to."
    yield ""
    yield from _by_suite(comparison)
    if comparison.holes:
        yield "## Not measured"
        yield ""
        yield from (
            f"- {_inline(arm.label)}: {arm.state}. {harmless(arm.reason or 'No reason was recorded.')}"
            for arm in comparison.holes
        )
        yield ""
    if examples:
        focus = arm_in_focus(comparison, decision)
        yield f"## Where {_inline(focus.label) if focus else 'it'} still loses"
        yield ""
        for example in examples:
            yield f"**{_inline(example.asked)}** (row `{example.row_id}`, score {example.score:.2f})"
            yield f"- expected: `{_code(example.expected)}`"
            yield f"- answered: `{_code(example.answered)}`"
            yield ""
    yield "## How to read this"
    yield ""
    yield from (f"- {harmless(caveat)}" for caveat in caveats(comparison))


def _leaderboard(comparison: Comparison) -> Iterator[str]:
    metrics = [metric for metric in comparison.reference if metric in comparison.reference_scores]
    header = ["candidate", "variant", *metrics, "p50 ms", "p95 ms", "rows", "errors"]
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    teacher = ["(reference)", "teacher", *(_by_construction(comparison.reference_scores[metric]) for metric in metrics)]
    logged = [_milliseconds(comparison.reference_latency_ms.get(key)) for key in ("p50", "p95")]
    yield "| " + " | ".join([*teacher, *logged, str(len(comparison.row_ids)), ""]) + " |"
    if comparison.ceiling:
        again = ["(reference)", "teacher, asked once more", *(_cell(comparison.ceiling.get(metric)) for metric in metrics)]
        yield "| " + " | ".join([*again, "", "", str(len(comparison.row_ids)), ""]) + " |"
    for arm in comparison.arms:
        yield "| " + " | ".join(_arm_cells(arm, metrics)) + " |"


def _by_suite(comparison: Comparison) -> Iterator[str]:
    """The main metric of every evaluated arm by label: what the mean over all rows hides."""
    metric = MAIN_METRIC[comparison.workload_type]
    arms = [(arm, arm.report) for arm in comparison.evaluated if arm.report is not None]
    labelled = [
        (suite, label)
        for suite in REPORTED_SUITES
        for label in sorted({label for _, report in arms for label in report.suites.get(suite, {})})
    ]
    if not labelled:
        return
    header = ["suite", "label", *(_inline(arm.label) for arm, _ in arms)]
    yield f"## `{metric}` by suite"
    yield ""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for suite, label in labelled:
        found = (report.suites.get(suite, {}).get(label) for _, report in arms)
        cells = [_cell(suite_report.scores.get(metric)) if suite_report else "" for suite_report in found]
        yield "| " + " | ".join([_inline(suite), _inline(label), *cells]) + " |"
    yield ""


def _arm_cells(arm: Arm, metrics: Sequence[str]) -> list[str]:
    name = _inline(arm.candidate) + (f" (derived from {_inline(arm.derived_from)})" if arm.derived_from else "")
    if arm.report is None:
        return [name, arm.variant.value, *([arm.state] + [""] * (len(metrics) - 1) if metrics else []), "", "", "", ""]
    report = arm.report
    latency = [_milliseconds(report.latency_ms[key]) for key in ("p50", "p95")]
    scores = [_cell(report.scores.get(metric)) for metric in metrics]
    return [name, arm.variant.value, *scores, *latency, str(report.n), str(report.errors)]


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _cell(score: Score | None) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] ({score.n})" if score else ""


def _by_construction(score: Score) -> str:
    # An interval would suggest that the reference was measured.
    return f"{score.value:.3f} ({score.n})"


def _inline(text: str) -> str:
    """Text that cannot break a Markdown line or table."""
    shown = harmless_cell(_cut(text))
    for special in ("*", "_", "`"):
        shown = shown.replace(special, f"\\{special}")
    return shown


def _code(text: str) -> str:
    return harmless_code(_cut(text))


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[:_LONGEST] + " ..."
