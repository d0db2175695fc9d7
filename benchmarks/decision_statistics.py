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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import figure
from flywheel_assets.core.comparison import Arm, Comparison
from flywheel_assets.core.decisions import Verdict, decide
from flywheel_assets.core.gates import Gate
from flywheel_assets.core.looks import Look
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.rows import Variant, WorkloadType
from flywheel_assets.core.sample_size import Seen, plan_rows
from flywheel_assets.core.statistics import mean_interval

EXPERIMENTS = int(os.environ.get("FLYWHEEL_EXPERIMENTS", "10000"))
ALPHA, POWER = 0.05, 0.8
_METRIC = "function_name_and_args"
_CHUNK = 250
_PLOTS = Path("docs/images")
# Where the true rate is alpha exactly, the simulated one lies above it half of the time; beyond this many standard errors it
# is no accident.
_ERRORS = 2.5

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """One kind of experiment. `loss` is what every arm at the edge loses; `right` is the share the reference gets right.

    `clusters` conversations of 1 to `longest` rows, alike by `icc` within; `looks` are eval-row counts; `arms` compete.
    `graded` scores are between 0 and 1.
    """

    name: str
    clusters: int
    margin: float
    loss: float
    arms: int = 1
    right: float = 1.0
    longest: int = 1
    icc: float = 0.0
    looks: tuple[int, ...] = ()
    graded: bool = False
    good: int = 0


EDGE = (
    Setting("1 candidate, teacher right by construction", 300, 0.05, 0.05),
    Setting("3 candidates, teacher right by construction", 300, 0.05, 0.05, arms=3),
    Setting("10 candidates, teacher right by construction", 300, 0.05, 0.05, arms=10),
    Setting("1 candidate, teacher sometimes wrong", 300, 0.05, 0.05, right=0.9),
    Setting("3 candidates, teacher sometimes wrong", 300, 0.05, 0.05, arms=3, right=0.9),
    Setting("10 candidates, teacher sometimes wrong", 300, 0.05, 0.05, arms=10, right=0.9),
    Setting("conversations of 1 to 5 rows", 100, 0.05, 0.05, longest=5, icc=0.3),
    Setting("conversations, teacher sometimes wrong", 100, 0.1, 0.1, longest=5, icc=0.3, right=0.9),
    Setting("few long conversations that are alike", 60, 0.1, 0.1, longest=8, icc=0.6),
    Setting("scores between 0 and 1", 150, 0.05, 0.05, graded=True),
    Setting("4 registered looks", 400, 0.05, 0.05, looks=(100, 200, 300, 400)),
    Setting("4 registered looks, 3 candidates", 400, 0.05, 0.05, arms=3, looks=(100, 200, 300, 400)),
)


def bench_false_promotions() -> dict[str, object]:
    """Share of experiments that promote although every arm loses exactly the margin: the worst setting's."""
    rates = _rates(EDGE, promotes)
    _plot("false_promotions.png", rates, ALPHA, "share of promotions where no candidate is good enough")
    worst = max(rates.values())
    allowed = ALPHA + _ERRORS * math.sqrt(ALPHA * (1 - ALPHA) / EXPERIMENTS)
    return figure("false_promotion_rate", worst, "share", "lower", ALPHA, ok=worst <= allowed, peer=rates)


def bench_power() -> dict[str, object]:
    """Share of experiments that promote a good candidate on the rows `flywheel plan` asks for: the worst setting's."""
    settings = []
    for arms in (1, 3, 10):
        for discordance in (0.05, 0.1, 0.2):
            # As good as the teacher: what it loses elsewhere it wins.
            n = _planned(0.0, discordance, arms)
            settings.append(
                Setting(
                    f"{arms} competing, {discordance:.0%} discordant", n, 0.05, discordance, arms=arms, right=0.5, good=1
                )
            )
        n = _planned(-0.02, 0.02, arms)
        settings.append(Setting(f"{arms} competing, loses 2 of 5 points", n, 0.05, 0.02, arms=arms, good=1))
    rates = _rates(settings, promotes)
    _plot("power.png", rates, POWER, "share of promotions of a candidate that is good enough")
    worst = min(rates.values())
    allowed = POWER - _ERRORS * math.sqrt(POWER * (1 - POWER) / EXPERIMENTS)
    return figure("power_at_planned_n", worst, "share", "higher", POWER, ok=worst >= allowed, peer=rates)


def bench_coverage() -> dict[str, object]:
    """Share of 95% intervals that hold the true mean: the setting that is furthest off."""
    settings = [
        Setting(f"{n} rows, {kind}", n, 0, 0, longest=longest, icc=icc, graded=graded)
        for n in (60, 100, 300)
        for kind, longest, icc, graded in (
            ("right or wrong", 1, 0.0, False),
            ("right or wrong, in conversations", 5, 0.3, False),
            ("between 0 and 1", 1, 0.0, True),
            ("between 0 and 1, in conversations", 5, 0.4, True),
        )
    ]
    rates = _rates(settings, covers)
    _plot("coverage.png", rates, 0.95, "share of 95% intervals that hold the true mean")
    worst = max(rates.values(), key=lambda rate: abs(rate - 0.95))
    return figure("interval_coverage", worst, "share", "higher", 0.95, ok=abs(worst - 0.95) <= 0.01, peer=rates)


def promotes(setting: Setting, rng: np.random.Generator) -> bool:
    """One experiment: whether anything is promoted, at any of the looks. With a good arm: whether that one is."""
    codes = _clusters(setting, rng)
    reference, columns = _drawn(setting, codes, rng)
    looks = setting.looks or (codes.size,)
    earlier: tuple[Look, ...] = ()
    for rows in looks:
        compared = _comparison(reference[:rows], [column[:rows] for column in columns], codes[:rows])
        decided = decide(compared, [Gate(_METRIC, setting.margin)], alpha=ALPHA, looks=setting.looks, earlier=earlier)
        if decided.verdict is Verdict.PROMOTE:
            return setting.good == 0 or decided.candidate == "m0"
        earlier = tuple(Look.from_json(look) for look in decided.evidence["looks_taken"])
    return False


def covers(setting: Setting, rng: np.random.Generator) -> bool:
    """One experiment: whether the interval of a mean, drawn anew each time, holds it."""
    codes = _clusters(setting, rng)
    if setting.graded:
        a, b = rng.uniform(0.3, 4, 2)
        shared = rng.beta(a, b, setting.clusters)[codes]
        scores = np.where(rng.random(codes.size) < setting.icc, shared, rng.beta(a, b, codes.size))
        mean = a / (a + b)
    else:
        mean = rng.uniform(0.1, 0.95)
        scores = _events(mean, setting, codes, rng)
    interval = mean_interval(scores, codes)
    return bool(interval.low <= mean <= interval.high)


def _planned(difference: float, discordance: float, arms: int) -> int:
    seen = {_METRIC: Seen(difference, discordance)}
    plan = plan_rows([(_METRIC, 0.05)], available={}, observed=seen, arms=arms, alpha=ALPHA, power=POWER)[0]
    return plan.needed or 0


def _clusters(setting: Setting, rng: np.random.Generator) -> Codes:
    sizes = rng.integers(1, setting.longest + 1, setting.clusters)
    return np.repeat(np.arange(setting.clusters), sizes)


def _events(share: float, setting: Setting, codes: Codes, rng: np.random.Generator) -> Floats:
    """1 with probability `share`; a conversation has its own, beta-distributed one, so that its rows correlate by icc."""
    if not setting.icc:
        return (rng.random(codes.size) < share).astype(float)
    spread = (1 - setting.icc) / setting.icc
    own = rng.beta(share * spread, (1 - share) * spread, setting.clusters)[codes]
    return (rng.random(codes.size) < own).astype(float)


def _drawn(setting: Setting, codes: Codes, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
    """The reference's scores and those of each arm."""
    if setting.good:
        return _with_one_good(setting, codes, rng)
    reference = np.ones(codes.size) if setting.right == 1 else _events(setting.right, setting, codes, rng)
    columns = []
    for _ in range(setting.arms):
        if setting.graded:
            # Mostly right, sometimes half, sometimes wrong: the mean loss is `loss`.
            columns.append(
                rng.choice([1.0, 0.5, 0.0], p=[1 - 1.5 * setting.loss, setting.loss, setting.loss / 2], size=codes.size)
            )
            continue
        # Wins half of what the reference has wrong, and loses enough of the rest that the net is `loss`.
        gained = 0.5 * (1 - setting.right)
        lost = _events((setting.loss + gained) / setting.right, setting, codes, rng)
        won = _events(0.5, setting, codes, rng)
        columns.append(np.where(reference == 1, 1 - lost, won))
    return reference, columns


def _with_one_good(setting: Setting, codes: Codes, rng: np.random.Generator) -> tuple[Floats, list[Floats]]:
    """One arm as planned for, first; the others hopeless, so that Holm is at its strictest."""
    n = codes.size
    if setting.right == 1:
        reference = np.ones(n)
        good = 1 - _events(setting.loss, setting, codes, rng)
    else:
        reference = (rng.random(n) < setting.right).astype(float)
        # `loss` is the discordance here: half of the rows the reference has right, half of the others.
        flips = rng.random(n) < setting.loss
        good = np.where(flips, 1 - reference, reference)
    bad = [(rng.random(n) < 0.3).astype(float) for _ in range(setting.arms - 1)]
    return reference, [good, *bad]


def _comparison(reference: Floats, columns: Sequence[Floats], codes: Codes) -> Comparison:
    n = reference.size
    row_ids = tuple(map(str, range(n)))
    blank = Arm("", Variant.BASE, "ok", None, None, "v", None, None, row_ids, {}, np.zeros(n, bool))
    return Comparison(
        workload="w",
        workload_type=WorkloadType.TOOL_CALLING,
        dataset_version="d",
        row_ids=row_ids,
        clusters=tuple(map(str, codes)),
        reference={_METRIC: reference},
        reference_scores={_METRIC: Score(float(reference.mean()), 0.0, 1.0, n)},
        arms=tuple(replace(blank, candidate=f"m{i}", scores={_METRIC: column}) for i, column in enumerate(columns)),
    )


Experiment = Callable[[Setting, np.random.Generator], bool]


def _rates(settings: Sequence[Setting], experiment: Experiment) -> dict[str, float]:
    """The share of experiments that come out true, by setting."""
    rates: dict[str, float] = {}
    with ProcessPoolExecutor() as pool:
        for setting in settings:
            starts = range(0, EXPERIMENTS, _CHUNK)
            hits = sum(pool.map(_chunk, [setting] * len(starts), [experiment] * len(starts), starts))
            rates[setting.name] = round(hits / EXPERIMENTS, 4)
            print(f"{setting.name}: {rates[setting.name]:.4f}", file=sys.stderr, flush=True)
    return rates


def _chunk(setting: Setting, experiment: Experiment, start: int) -> int:
    label = sum(setting.name.encode())
    stop = min(start + _CHUNK, EXPERIMENTS)
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
    axes.set_title(f"{title} ({EXPERIMENTS:,} experiments each)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    drawn.savefig(_PLOTS / name, dpi=110)


if __name__ == "__main__":
    for bench in (bench_coverage, bench_power, bench_false_promotions):
        print(json.dumps(bench()), flush=True)
