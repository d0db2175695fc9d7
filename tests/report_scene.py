"""A scene for the report: one workload of a web shop, three candidates in three variants, one of which failed to train.

Nothing here was measured: the answers are drawn with fixed seeds at rates that such models have. They go through the real
scoring, files, comparison and decision. `python -m tests.report_scene FOLDER` writes the reports of every verdict, and
`python -m tests.report_scene --picture docs/images/report.png` the screenshot in the docs.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flywheel_assets.core.comparison import ArmResult, Comparison, compare
from flywheel_assets.core.costs import TokenPrice, cost_per_1k
from flywheel_assets.core.decisions import Decision, decide
from flywheel_assets.core.gates import Gate, GateKind
from flywheel_assets.core.predictions import ScoredPredictions, build_report, read_predictions, write_predictions
from flywheel_assets.core.report import arm_in_focus, gated_metrics, losses_of, report_of, to_html
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, ToolCall, Variant, WorkloadType

TOOLS = WorkloadType.TOOL_CALLING
COMPARED_AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
SILENCE = Answer("That is nothing I can look up for you. I will hand you over to a colleague.")
# domain: (share of the rows, tool, what people write)
DOMAINS = {
    "orders": (0.34, "orders.find", "Where is order {n}? It was to come on Tuesday."),
    "refunds": (0.26, "refunds.open", "I would like my money back for order {n}, the blender arrived broken."),
    "shipping": (0.20, "shipping.change_address", "Please send parcel {n} to Hafenstraße 12 in 20457 Hamburg instead."),
    "subscriptions": (0.13, "subscriptions.pause", "Can you pause my subscription {n} until the end of March?"),
    "gift_cards": (0.07, "gift_cards.balance", "How much is left on gift card {n}?"),
}
# candidate: (USD per million tokens in and out, median milliseconds, share right as base, prefixed and customized)
CANDIDATES = {
    "smollm2-135m": (TokenPrice(0.02, 0.04), 95.0, (0.31, 0.62, 0.83)),
    "qwen2.5-0.5b": (TokenPrice(0.05, 0.10), 160.0, (0.58, 0.81, 0.985)),
    "qwen2.5-1.5b": (TokenPrice(0.14, 0.28), 310.0, (0.71, 0.90, 0.99)),
}
GATES = (
    Gate("function_name_and_args", 0.05),
    Gate("no_call", 0.10),
    Gate("function_name_and_args", 0.80, GateKind.FLOOR, "turns=multi_turn"),
    Gate("function_name_and_args", 0.05, GateKind.IMPROVEMENT),
    Gate("latency_p95_ms", 800, GateKind.BUDGET),
    Gate("cost_per_1k_usd", 0.40, GateKind.BUDGET),
)
HOLE = ("qwen2.5-1.5b", Variant.CUSTOMIZED)
OUT_OF_MEMORY = "the training ran out of memory at step 12: lower training.batch_size, or take a larger card"


@dataclass(frozen=True, slots=True)
class Scene:
    """A comparison, its rows, and the answers of every evaluated arm by its label."""

    rows: tuple[EvalRow, ...]
    comparison: Comparison
    evaluations: dict[str, ScoredPredictions]

    def html(self, gates: Sequence[Gate] = GATES, *, decided: bool = True) -> str:
        """The report, with the verdict that these gates give."""
        decision = decide(self.comparison, gates) if decided else None
        return self.html_of(decision)

    def html_of(self, decision: Decision | None) -> str:
        """The report of a decision on this comparison, with examples."""
        focus = arm_in_focus(self.comparison, decision)
        metrics = gated_metrics(decision) if decision else ("function_name_and_args",)
        losses = losses_of(self.rows, self.evaluations[focus.label], metrics) if focus else ()
        return to_html(report_of(self.comparison, decision, losses, compared_at=COMPARED_AT, max_age_days=30))


def shop(n: int = 520, *, better_by: float = 0.0) -> Scene:
    """The scene on `n` rows; every candidate is right more often by `better_by` than it would be."""
    rows = tuple(_rows(n))
    evaluations, results = {}, []
    for name, (price, median, rates) in CANDIDATES.items():
        for variant, rate in zip(Variant, rates, strict=True):
            if (name, variant) == HOLE:
                results.append(ArmResult(name, variant, "failed", OUT_OF_MEMORY))
                continue
            rng = random.Random(f"{name} {variant}")
            answers = [_answer(rng, row, min(1.0, rate + better_by), median, variant) for row in rows]
            file = io.BytesIO()
            write_predictions(file, TOOLS, rows, answers)
            evaluation = read_predictions(io.BytesIO(file.getvalue()))
            report = build_report(TOOLS, rows, answers, cost_per_1k_usd=cost_per_1k(answers, price))
            results.append(ArmResult(name, variant, "ok", report=report, evaluation=evaluation, version="v1"))
            evaluations[f"{name} ({variant})"] = evaluation
    compared = compare(
        "order-router",
        TOOLS,
        rows,
        results,
        dataset_version="3f9c1d7a4e0b",
        eval_sources={"traffic": n},
        reference_cost_per_1k_usd=2.85,
    )
    return Scene(rows, compared, evaluations)


def _rows(n: int) -> list[EvalRow]:
    rng = random.Random(11)
    rows = []
    for i in range(n):
        domain = rng.choices(list(DOMAINS), [share for share, _, _ in DOMAINS.values()])[0]
        _, tool, text = DOMAINS[domain]
        number = rng.randrange(10_000, 99_999)
        multi, silent = rng.random() < 0.3, rng.random() < 0.16
        said = "Are you open on Sundays, and who do I speak to?" if silent else text.format(n=number)
        arguments = {"id": str(number), "reason": "damaged"} if domain == "refunds" else {"id": str(number)}
        rows.append(
            EvalRow(
                row_id=f"r{i:04d}",
                trace_id=f"t{i:04d}",
                cluster=f"c{i // 2 if i % 9 == 0 else i}",
                request={"messages": [{"role": "user", "content": said}]},
                reference=SILENCE if silent else Answer(None, (ToolCall(tool, json.dumps(arguments)),)),
                suite_turns="multi_turn" if multi else "single_turn",
                suite_turn_kind=rng.choice(("clarification", "sequential", "context_dependent")) if multi else None,
                suite_complexity=rng.choices(("simple", "moderate", "complex"), (5, 3, 1))[0],
                suite_domain=domain,
            )
        )
    return rows


def _answer(rng: random.Random, row: EvalRow, rate: float, median: float, variant: Variant) -> Prediction:
    # Later turns, nested tools and refunds are where small models are weak.
    harder = 2.0 * (row.suite_turns == "multi_turn") + 1.5 * (row.suite_complexity == "complex")
    wrong = (1 - rate) * (0.55 + 0.45 * harder + 0.5 * (row.suite_domain == "refunds"))
    prompt = int(rng.gauss(620, 90)) + (700 if variant is Variant.PREFIXED else 0)
    latency = median * (1.6 if variant is Variant.PREFIXED else 1.0) * rng.lognormvariate(0.0, 0.33)
    answer = row.reference
    if rng.random() < wrong:
        answer = _wrong(rng, row.reference)
    return Prediction(row.row_id, answer, latency, prompt, int(rng.gauss(38, 8)))


def _wrong(rng: random.Random, right: Answer) -> Answer:
    if not right.tool_calls:
        return Answer(None, (ToolCall("orders.find", '{"id": "sunday"}'),))
    call = right.tool_calls[0]
    arguments = json.loads(call.arguments)
    if "reason" in arguments and rng.random() < 0.6:
        return Answer(None, (ToolCall(call.name, json.dumps({**arguments, "reason": "not needed"})),))
    if rng.random() < 0.5:
        return Answer(None, (ToolCall("orders.find", call.arguments),))
    return Answer("I am sorry to hear that. Could you tell me the number once more?")


def _small(png: bytes) -> bytes:
    """The same picture in 256 colours: a third of the size, and a page of text has no more."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        out, "PNG", optimize=True
    )
    return out.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Write the reports of every verdict into a folder, or the screenshot to a file."""
    if arguments[:1] == ["--picture"]:
        from tests.browser import screenshot

        Path(arguments[1]).write_bytes(_small(screenshot(shop().html(), width=1180, height=4250)))
        return
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    strict = (Gate("function_name_and_args", 0.005), Gate("no_call", 0.05))
    pages = {
        "promote": shop().html(),
        "inconclusive": shop(150).html(),
        "keep": shop(better_by=-0.2).html(strict),
        "compared": shop().html(decided=False),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
