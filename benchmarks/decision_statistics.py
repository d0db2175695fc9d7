"""Whether verdicts keep their promises: false promotions, power at the planned rows, coverage of the intervals.

Simulated experiments go through `core.decisions.decide`, as the `decision` asset calls it, and through
`core.statistics.mean_interval`, as the reports do. Seeds are fixed; every experiment has one of its own, so that the figures
do not depend on the number of processes. The worst setting is the figure, and every setting is its `peer`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.figure import figure
from benchmarks.traffic import Floats, Rows, Setting, drawn, events, lengths
from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.datasets.exam import ExamFacts
from flywheel_assets.core.decisions import Verdict, decide
from flywheel_assets.core.exam_size import Planning, plan_exam
from flywheel_assets.core.gates import Against, Gate, GateKind
from flywheel_assets.core.looks import Look
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.rows import Variant, WorkloadType
from flywheel_assets.core.statistics import mean_interval

EXPERIMENTS = int(os.environ.get("FLYWHEEL_EXPERIMENTS", "10000"))
ALPHA, POWER = 0.05, 0.8
_METRIC = "function_name_and_args"
_SUITE, _LABEL = "turns", "multi_turn"
_CHUNK = 250
_PLOTS = Path("docs/images")
# Where the true rate is alpha exactly, the simulated one lies above it half of the time; beyond this many standard errors it
# is no accident.
_ERRORS = 2.5
# Bootstraps take a hundred times as long as counts; a fifth of the experiments tells their rates to within 1.2 points.
_BOOTSTRAPPED = 5

_LOOKS = (100, 200, 300, 400)
EDGE = (
    Setting("1 candidate, teacher right by construction", 300, 0.05, 0.05),
    Setting("3 candidates, teacher right by construction", 300, 0.05, 0.05, arms=3),
    Setting("10 candidates, teacher right by construction", 300, 0.05, 0.05, arms=10),
    Setting("1 candidate, teacher sometimes wrong", 300, 0.05, 0.05, right=0.9),
    Setting("3 candidates, teacher sometimes wrong", 300, 0.05, 0.05, arms=3, right=0.9),
    Setting("10 candidates, teacher sometimes wrong", 300, 0.05, 0.05, arms=10, right=0.9),
    Setting("conversations of 1 to 5 rows", 100, 0.05, 0.05, longest=5, lost="alike"),
    Setting("conversations, teacher sometimes wrong", 100, 0.1, 0.1, longest=5, lost="alike", right=0.9),
    Setting("few long conversations that are alike", 60, 0.1, 0.1, longest=8, lost="alike", icc=0.6),
    Setting("scores between 0 and 1", 150, 0.05, 0.05, gate="graded"),
    Setting("4 registered looks", 400, 0.05, 0.05, looks=_LOOKS),
    Setting("4 registered looks, 3 candidates", 400, 0.05, 0.05, arms=3, looks=_LOOKS),
    # A few conversations are long. Without a limit on the rows drawn of one:
    Setting("150 conversations, 1 in 20 has 30 rows, lost whole", 150, 0.1, 0.1, lengths="few_long", lost="whole"),
    Setting("400 conversations, 1 in 20 has 30 rows, lost whole", 400, 0.1, 0.1, lengths="few_long", lost="whole"),
    Setting("150 Pareto conversations, lost whole", 150, 0.1, 0.1, lengths="pareto", lost="whole"),
    Setting("150 Pareto conversations, longer ones likelier", 150, 0.1, 0.1, lengths="pareto", lost="longer"),
    Setting("400 Pareto conversations, longer ones likelier", 400, 0.1, 0.1, lengths="pareto", lost="longer"),
    Setting("400 Pareto conversations, each its own rate", 400, 0.05, 0.05, lengths="pareto", lost="alike"),
    Setting("Pareto, teacher sometimes wrong", 400, 0.1, 0.1, lengths="pareto", lost="whole", right=0.9),
    Setting("Pareto, scores between 0 and 1", 400, 0.1, 0.1, lengths="pareto", lost="whole", gate="graded"),
    Setting("Pareto, a floor", 400, 0.1, 0.1, lengths="pareto", lost="whole", gate="floor"),
    Setting("Pareto, an improvement", 400, 0.1, 0.1, lengths="pareto", lost="whole", gate="improvement"),
    Setting("Pareto, a suite", 800, 0.1, 0.1, lengths="pareto", lost="whole", gate="suite"),
    # As new workloads are drawn: 3 rows of a conversation at most, in proportion to tools.
    Setting("drawn, 1 in 20 long, lost whole", 600, 0.05, 0.05, lengths="few_long", lost="whole", cap=3, drawn=400),
    Setting("drawn, Pareto, lost whole", 600, 0.05, 0.05, lengths="pareto", lost="whole", cap=3, drawn=400),
    Setting("drawn, Pareto, longer ones likelier", 600, 0.05, 0.05, lengths="pareto", lost="longer", cap=3, drawn=400),
    Setting("drawn, Pareto, each its own rate", 600, 0.05, 0.05, lengths="pareto", lost="alike", cap=3, drawn=400),
    Setting(
        "drawn, Pareto, teacher sometimes wrong",
        600,
        0.05,
        0.05,
        lengths="pareto",
        lost="whole",
        cap=3,
        drawn=400,
        right=0.9,
    ),
    Setting(
        "drawn, Pareto, scores between 0 and 1",
        600,
        0.1,
        0.1,
        lengths="pareto",
        lost="whole",
        cap=3,
        drawn=300,
        gate="graded",
    ),
    Setting("drawn, Pareto, a floor", 600, 0.05, 0.05, lengths="pareto", lost="whole", cap=3, drawn=400, gate="floor"),
    Setting(
        "drawn, Pareto, an improvement", 600, 0.1, 0.1, lengths="pareto", lost="whole", cap=3, drawn=400, gate="improvement"
    ),
    Setting("drawn, Pareto, a suite", 600, 0.1, 0.1, lengths="pareto", lost="whole", cap=3, drawn=400, gate="suite"),
    Setting("drawn, Pareto, 4 looks", 600, 0.05, 0.05, lengths="pareto", lost="longer", cap=3, drawn=400, looks=_LOOKS),
)


def bench_false_promotions() -> dict[str, object]:
    """Share of experiments that promote although every arm loses exactly the margin: the worst setting's."""
    rates = _rates(EDGE, promotes)
    _plot("false_promotions.png", rates, ALPHA, "share of promotions where no candidate is good enough")
    excess = {setting.name: rates[setting.name] - _allowed(setting) for setting in EDGE}
    return figure(
        "false_promotion_rate", max(rates.values()), "share", "lower", ALPHA, ok=max(excess.values()) <= 0, peer=rates
    )


def _allowed(setting: Setting) -> float:
    return ALPHA + _ERRORS * math.sqrt(ALPHA * (1 - ALPHA) / experiments(setting))


def bench_power() -> dict[str, object]:
    """Share of experiments that promote a good candidate on the rows that `flywheel plan` and `eval_size: auto` ask for: the
    worst setting's."""
    settings = []
    for arms in (1, 3, 10):
        for discordance in (0.05, 0.1, 0.2):
            # As good as the teacher: what it loses elsewhere it wins.
            n = planned(Setting("", 1, 0.05, discordance, arms=arms, right=0.5), loss=0.0)
            settings.append(
                Setting(
                    f"{arms} competing, {discordance:.0%} discordant", n, 0.05, discordance, arms=arms, right=0.5, good=1
                )
            )
        n = planned(Setting("", 1, 0.05, 0.02, arms=arms), loss=0.02)
        settings.append(Setting(f"{arms} competing, loses 2 of 5 points", n, 0.05, 0.02, arms=arms, good=1))
    for kind, lost in (("few_long", "rows"), ("few_long", "alike"), ("pareto", "rows"), ("pareto", "alike")):
        plain = Setting("", 4000, 0.05, 0.01, lengths=kind, lost=lost, cap=3, arms=2, good=1)
        n = planned(plain, loss=0.01)
        told = "1 in 20 long" if kind == "few_long" else "Pareto"
        settings.append(replace(plain, name=f"drawn, {told}, loses 1 of 5 points, {lost}", drawn=n))
    rates = _rates(settings, promotes)
    _plot("power.png", rates, POWER, "share of promotions of a candidate that is good enough")
    worst = min(rates.values())
    allowed = POWER - _ERRORS * math.sqrt(POWER * (1 - POWER) / EXPERIMENTS)
    return figure("power_at_planned_n", worst, "share", "higher", POWER, ok=worst >= allowed, peer=rates)


def bench_coverage() -> dict[str, object]:
    """Share of 95% intervals that hold the true mean: the setting that is furthest off.

    Intervals may be wide where conversations are uneven and few; what they must not be is narrow.
    """
    settings = [
        Setting(f"{n} rows, {kind}", n, 0, 0, longest=longest, lost=lost, icc=icc, gate=gate)
        for n in (60, 100, 300)
        for kind, longest, lost, icc, gate in (
            ("right or wrong", 1, "rows", 0.3, "margin"),
            ("right or wrong, in conversations", 5, "alike", 0.3, "margin"),
            ("between 0 and 1", 1, "rows", 0.0, "graded"),
            ("between 0 and 1, in conversations", 5, "alike", 0.4, "graded"),
        )
    ]
    uneven = [
        Setting("100 Pareto conversations", 100, 0, 0, lengths="pareto", lost="alike"),
        Setting("300 Pareto conversations", 300, 0, 0, lengths="pareto", lost="alike"),
        Setting("100 Pareto conversations, whole", 100, 0, 0, lengths="pareto", lost="whole"),
        Setting("300 conversations, 1 in 20 has 30 rows, whole", 300, 0, 0, lengths="few_long", lost="whole"),
        Setting("drawn, Pareto", 300, 0, 0, lengths="pareto", lost="alike", cap=3),
        Setting("drawn, 1 in 20 long, whole", 300, 0, 0, lengths="few_long", lost="whole", cap=3),
    ]
    rates = _rates((*settings, *uneven), covers)
    _plot("coverage.png", rates, 0.95, "share of 95% intervals that hold the true mean")
    worst = max(rates.values(), key=lambda rate: abs(rate - 0.95))
    even = all(abs(rates[setting.name] - 0.95) <= 0.01 for setting in settings)
    wide = all(rates[setting.name] >= 0.93 for setting in uneven)
    return figure("interval_coverage", worst, "share", "higher", 0.95, ok=even and wide, peer=rates)


def promotes(setting: Setting, rng: np.random.Generator) -> bool:
    """One experiment: whether anything is promoted, at any of the looks. With a good arm: whether that one is."""
    rows = drawn(setting, rng)
    compared = _compared(setting, rows, rng)
    earlier: tuple[Look, ...] = ()
    for look in setting.looks or (rows.n,):
        decided = decide(_first(compared, look), gates_of(setting), alpha=ALPHA, looks=setting.looks, earlier=earlier)
        if setting.gate == "improvement":
            # The base variant meets the other gate, and rightly: it is the tuned one that gains no more than the margin.
            if any(arm["passes"] for arm in decided.evidence["arms"] if arm["variant"] != Variant.BASE):
                return True
        elif decided.verdict is Verdict.PROMOTE:
            return setting.good == 0 or decided.candidate == "m0"
        earlier = tuple(Look.from_json(look) for look in decided.evidence["looks_taken"])
    return False


def gates_of(setting: Setting) -> list[Gate]:
    """The gate at the edge, and where it asks for no quality by itself, one that is met for certain."""
    match setting.gate:
        case "floor":
            return [Gate(_METRIC, 1.0 - setting.margin, GateKind.FLOOR)]
        case "improvement":
            return [Gate(_METRIC, 0.01, GateKind.FLOOR), Gate(_METRIC, setting.margin, GateKind.IMPROVEMENT)]
        case "suite":
            return [Gate(_METRIC, setting.margin, suite=f"{_SUITE}={_LABEL}")]
        case _:
            return [Gate(_METRIC, setting.margin)]


def covers(setting: Setting, rng: np.random.Generator) -> bool:
    """One experiment: whether the interval of a mean, drawn anew each time, holds it."""
    rows = drawn(setting, rng)
    if setting.gate == "graded":
        a, b = rng.uniform(0.3, 4, 2)
        shared = rng.beta(a, b, rows.sizes.size)[rows.clusters]
        scores = np.where(rng.random(rows.n) < setting.icc, shared, rng.beta(a, b, rows.n))
        mean = a / (a + b)
    else:
        mean = rng.uniform(0.1, 0.95)
        scores = events(mean, setting, rows, rng)
    interval = mean_interval(scores, rows.clusters)
    return bool(interval.low <= mean <= interval.high)


def planned(setting: Setting, *, loss: float) -> int:
    """The rows that are planned for traffic like this, for a candidate that loses so much."""
    sizes = lengths(setting, 20_000, np.random.default_rng(3))
    counted = sizes if setting.cap is None else np.minimum(sizes, setting.cap)
    values, counts = np.unique(counted, return_counts=True)
    facts = ExamFacts(
        examinable=int(counted.sum()),
        kinds={"tool:f": int(counted.sum())},
        conversation_sizes=dict(zip(values.tolist(), counts.tolist(), strict=True)),
    )
    planning = Planning(
        arms=setting.arms,
        alpha=ALPHA,
        power=POWER,
        expected_loss=loss,
        expected_gain=0.1,
        expected_discordance=setting.loss,
        max_calls=10**9,
    )
    against = Against.REFERENCE if setting.right == 1 else Against.TEACHER
    gate = Gate(_METRIC, setting.margin, against=against)
    return plan_exam([gate], {gate.label: 1.0}, facts, planning).eval_size


def _compared(setting: Setting, rows: Rows, rng: np.random.Generator) -> Comparison:
    """The reference and the arms of one experiment."""
    n = rows.n
    if setting.good:
        reference, columns = _with_one_good(setting, rows, rng)
        return _comparison(reference, {f"m{i}": {Variant.BASE: column} for i, column in enumerate(columns)}, rows)
    reference = np.ones(n) if setting.right == 1 else (rng.random(n) < setting.right).astype(float)
    if setting.gate == "improvement":
        # The base variant is wrong on 30% of the rows, and exactly the gain of them is made good.
        base = 1 - events(0.3, setting, rows, rng)
        better = np.where(base == 0, events(setting.margin / 0.3, setting, rows, rng), base)
        return _comparison(reference, {"m0": {Variant.BASE: base, Variant.CUSTOMIZED: better}}, rows)
    suites = (rng.random(rows.sizes.size) < 0.5)[rows.clusters] if setting.gate == "suite" else None
    arms = {}
    for number in range(setting.arms):
        # Wins half of what the reference has wrong, and loses enough of the rest that the net is `loss`.
        gained = 0.5 * (1 - setting.right)
        lost = events((setting.loss + gained) / setting.right, setting, rows, rng)
        column = np.where(reference == 1, 1 - lost, (rng.random(n) < 0.5).astype(float))
        if setting.gate == "graded":
            # Half of what is lost is lost whole: so that the mean loss is `loss`, a third more is touched.
            touched = events(setting.loss * 4 / 3, setting, rows, rng)
            column = 1 - touched * np.where(rng.random(rows.sizes.size) < 0.5, 1.0, 0.5)[rows.clusters]
        if suites is not None:
            column = np.where(suites, column, 1.0)
        arms[f"m{number}"] = {Variant.BASE: column}
    return _comparison(reference, arms, rows, suites)


def _with_one_good(setting: Setting, rows: Rows, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
    """One arm as planned for, first; the others hopeless, so that Holm is at its strictest."""
    n = rows.n
    if setting.right == 1:
        reference = np.ones(n)
        good = 1 - events(setting.loss, setting, rows, rng)
    else:
        reference = (rng.random(n) < setting.right).astype(float)
        # `loss` is the discordance here: half of the rows the reference has right, half of the others.
        flips = rng.random(n) < setting.loss
        good = np.where(flips, 1 - reference, reference)
    bad = [(rng.random(n) < 0.3).astype(float) for _ in range(setting.arms - 1)]
    return reference, [good, *bad]


def _comparison(
    reference: Floats,
    arms: dict[str, dict[Variant, Floats]],
    rows: Rows,
    suites: np.ndarray | None = None,
) -> Comparison:
    row_ids = tuple(map(str, range(rows.n)))
    blank = Arm("", Variant.BASE, "ok", None, None, "v", None, None, row_ids, {}, np.zeros(rows.n, bool))
    return Comparison(
        workload="w",
        workload_type=WorkloadType.TOOL_CALLING,
        dataset_version="d",
        row_ids=row_ids,
        clusters=tuple(map(str, rows.clusters)),
        reference={_METRIC: reference},
        reference_scores={_METRIC: Score(float(reference.mean()), 0.0, 1.0, rows.n)},
        arms=tuple(
            replace(blank, candidate=name, variant=variant, scores={_METRIC: column})
            for name, variants in arms.items()
            for variant, column in variants.items()
        ),
        suites={} if suites is None else {_SUITE: tuple(_LABEL if chosen else None for chosen in suites)},
    )


def _first(compared: Comparison, rows: int) -> Comparison:
    """The comparison as it was when so many rows were drawn."""
    if rows >= len(compared.row_ids):
        return compared
    return replace(
        compared,
        row_ids=compared.row_ids[:rows],
        clusters=compared.clusters[:rows],
        reference={metric: column[:rows] for metric, column in compared.reference.items()},
        arms=tuple(
            replace(
                arm,
                row_ids=arm.row_ids[:rows],
                scores={metric: column[:rows] for metric, column in arm.scores.items()},
                errored=arm.errored[:rows],
            )
            for arm in compared.arms
        ),
    )


Experiment = Callable[[Setting, np.random.Generator], bool]


def experiments(setting: Setting) -> int:
    """How often a setting is tried."""
    return max(_CHUNK, EXPERIMENTS // _BOOTSTRAPPED) if setting.gate == "graded" and setting.margin else EXPERIMENTS


def _rates(settings: Sequence[Setting], experiment: Experiment) -> dict[str, float]:
    """The share of experiments that come out true, by setting."""
    rates: dict[str, float] = {}
    with ProcessPoolExecutor() as pool:
        for setting in settings:
            starts = range(0, experiments(setting), _CHUNK)
            hits = sum(pool.map(_chunk, [setting] * len(starts), [experiment] * len(starts), starts))
            rates[setting.name] = round(hits / experiments(setting), 4)
            print(f"{setting.name}: {rates[setting.name]:.4f}", file=sys.stderr, flush=True)
    return rates


def _chunk(setting: Setting, experiment: Experiment, start: int) -> int:
    label = sum(setting.name.encode())
    stop = min(start + _CHUNK, experiments(setting))
    return sum(experiment(setting, np.random.default_rng([label, number])) for number in range(start, stop))


def _plot(name: str, rates: dict[str, float], target: float, title: str) -> None:
    """The rates with their Monte-Carlo error, against what was promised."""
    from matplotlib.figure import Figure

    _PLOTS.mkdir(parents=True, exist_ok=True)
    drawn = Figure(figsize=(8.0, 0.7 + 0.32 * len(rates)), layout="constrained")
    axes = drawn.subplots()
    names = list(rates)[::-1]
    errors = [1.96 * math.sqrt(rates[name] * (1 - rates[name]) / EXPERIMENTS) for name in names]
    axes.errorbar([rates[name] for name in names], range(len(names)), xerr=errors, fmt="o", markersize=4, color="#2563eb")
    axes.axvline(target, color="#b91c1c", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    drawn.suptitle(f"{title} ({EXPERIMENTS:,} experiments each)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    drawn.savefig(_PLOTS / name, dpi=110)


if __name__ == "__main__":
    for bench in (bench_coverage, bench_power, bench_false_promotions):
        print(json.dumps(bench()), flush=True)
