"""Sample size: how many rows a verdict takes, before the evaluation and after an inconclusive one.

What belongs here: the arithmetic and the table `flywheel plan` prints. The tests themselves live in `core.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from scipy import special

from flywheel_assets.core.rows import Json

# Shares of rows on which candidate and reference disagree, shown while nothing has been observed.
ASSUMED_DISCORDANCES = (0.05, 0.10, 0.20, 0.30)


@dataclass(frozen=True, slots=True)
class RowPlan:
    """What one gate takes: `needed` eval rows of the `available` ones, at this discordance (0..1).

    `observed` tells a measured discordance from an assumed one; `missing` is 0 when there are enough.
    """

    metric: str
    margin: float
    discordance: float
    observed: bool
    needed: int
    available: int
    missing: int

    def to_json(self) -> Json:
        """A JSON-ready form with the fields' names."""
        return asdict(self)


def needed_rows(discordance: float, margin: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Independent rows with which a candidate that is as good as the reference is shown to be, with probability `power`.

    (z_alpha + z_power)^2 d / margin^2, one-sided: 6.18 d / margin^2 at the defaults; `discordance` d in 0..1. Never fewer
    than the rows on which even a candidate without a single loss could pass.
    """
    _check_plan(discordance, margin, alpha, power)
    z = float(special.ndtri(1 - alpha) + special.ndtri(power))
    return max(math.ceil(z * z * discordance / margin**2 - 1e-9), lossless_rows(margin, alpha=alpha))


def lossless_rows(margin: float, *, alpha: float = 0.05) -> int:
    """Fewest rows without any loss that exclude a loss of `margin`: by the exact bound, and by Tango's."""
    z = float(special.ndtri(1 - alpha))
    exact = math.log(alpha) / math.log(1 - margin)
    return math.floor(max(exact, z * z * (1 - margin) / margin)) + 1


def rows_to_settle(
    *, n: int, difference: float, discordance: float, margin: float, alpha: float = 0.05, power: float = 0.8
) -> int:
    """How many rows in all would probably settle a gate that `n` rows left open; always more than `n`.

    Planned for the difference that was observed, because a candidate that already loses rows cannot be planned for as if it
    were as good as the reference. One that seems to lie at the margin itself would ask for millions of rows, on evidence too
    weak to say so: distances under half a margin are planned as half a margin, and where even that many rows were not
    enough, the answer is as many again.
    """
    _check_plan(discordance, margin, alpha, power)
    z = float(special.ndtri(1 - alpha) + special.ndtri(power))
    # One more row of each kind: nothing observed in a few rows does not mean that nothing will be.
    expected = (discordance * n + 1) / (n + 2)
    distance = max(abs(difference + margin), margin / 2)
    total = max(
        needed_rows(expected, margin, alpha=alpha, power=power),
        math.ceil(z * z * max(expected - difference**2, expected / 2) / distance**2),
    )
    return total if total > n else 2 * n


def plan_rows(
    gates: Sequence[tuple[str, float]],
    *,
    available: Mapping[str, int],
    observed: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[RowPlan]:
    """Rows needed and rows available for each gate, (metric, margin).

    `available` counts the eval rows a metric applies to; `observed` holds the discordance of metrics that have been
    measured. A gate without one gets a line for each of `ASSUMED_DISCORDANCES`.
    """
    measured = observed or {}
    plans = []
    for metric, margin in gates:
        rows = available.get(metric, 0)
        for discordance in (measured[metric],) if metric in measured else ASSUMED_DISCORDANCES:
            needed = needed_rows(discordance, margin, alpha=alpha, power=power)
            plans.append(RowPlan(metric, margin, discordance, metric in measured, needed, rows, max(0, needed - rows)))
    return plans


def _check_plan(discordance: float, margin: float, alpha: float, power: float) -> None:
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance is a share of rows, 0..1; {discordance} was given.")
    for name, value in (("margin", margin), ("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1; {value} was given.")
