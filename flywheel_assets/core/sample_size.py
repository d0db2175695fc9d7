"""Sample size: how many rows a verdict takes, before the evaluation and after an inconclusive one.

What belongs here: the arithmetic of one gate. What does not: all gates of a verdict (`core.needs`), the size of an exam
(`core.exam_size`), and the tests themselves (`core.statistics`).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from flywheel_assets.core.statistics import tango_variance

# A gain closer to the one asked for than this would take thousands of rows to tell apart.
LEAST_GAIN_DISTANCE = 0.02


def needed_rows(
    discordance: float, margin: float, *, difference: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Independent rows with which a candidate that differs by `difference` is shown to lose less than the margin.

    With probability `power`, by the very test that decides: where rows are only lost (`difference` is minus the
    `discordance`), the exact binomial one; otherwise Tango's, ((z_alpha s0 + z_power s1) / (margin + difference))^2 with the
    standard deviations at the margin and as planned. The rule of thumb (z_alpha + z_power)^2 d / margin^2 takes s0 for s1,
    and falls short where the two seldom disagree. Never fewer than the rows on which even a candidate without a single loss
    could pass. A gain that must be exceeded is a margin of 0 or below. ValueError where the difference is the margin or
    worse.
    """
    _check_plan(discordance, margin, alpha, power)
    if difference <= -margin:
        raise ValueError(f"a candidate that loses {-difference:g} is never shown to lose less than {margin:g}.")
    least = lossless_rows(margin, alpha=alpha) if margin > 0 else 1
    gained, lost = max(0.0, (discordance + difference) / 2), max(0.0, (discordance - difference) / 2)
    if gained <= 1e-12 < lost:
        return max(least, _rows_to_exclude(margin, lost, alpha, power))
    z_alpha, z_power = float(special.ndtri(1 - alpha)), float(special.ndtri(power))
    at_margin = math.sqrt(tango_variance(gained, lost, -margin))
    as_planned = math.sqrt(max(discordance - difference**2, 0.0))
    return max(least, math.ceil(((z_alpha * at_margin + z_power * as_planned) / (margin + difference)) ** 2 - 1e-9))


def _rows_to_exclude(margin: float, lost: float, alpha: float, power: float) -> int:
    """Rows from which on the exact test excludes a loss of `margin` with that power, where the true loss is `lost`."""
    spread = special.ndtri(1 - alpha) * math.sqrt(margin * (1 - margin)) + special.ndtri(power) * math.sqrt(
        lost * (1 - lost)
    )
    about = (spread / (margin - lost)) ** 2
    rows = np.arange(1, 2 * math.ceil(about) + 2 * lossless_rows(margin, alpha=alpha))
    # The most losses with which the test still passes: its power is a saw, so the last tooth that is too low counts.
    most = np.floor(special.bdtrik(alpha, rows, margin)).astype(np.int64)
    most -= special.bdtr(np.maximum(most, 0), rows, margin) > alpha
    reached = np.where(most >= 0, special.bdtr(np.maximum(most, 0), rows, lost), 0.0)
    return int(rows[np.flatnonzero(reached < power)[-1]]) + 1


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
    enough, the answer is as many again. A gain that must be exceeded is a margin of 0 or below, and its least distance is
    `LEAST_GAIN_DISTANCE`.
    """
    _check_plan(discordance, max(margin, LEAST_GAIN_DISTANCE), alpha, power)
    z = float(special.ndtri(1 - alpha) + special.ndtri(power))
    # One more row of each kind: nothing observed in a few rows does not mean that nothing will be.
    expected = (discordance * n + 1) / (n + 2)
    distance = max(abs(difference + margin), margin / 2 if margin > 0 else LEAST_GAIN_DISTANCE)
    total = max(
        needed_rows(expected, margin, alpha=alpha, power=power) if margin > 0 else 0,
        math.ceil(z * z * max(expected - difference**2, expected / 2) / distance**2),
    )
    return total if total > n else 2 * n


def _check_plan(discordance: float, margin: float, alpha: float, power: float) -> None:
    if not 0 <= discordance <= 1:
        raise ValueError(f"discordance is a share of rows, 0..1; {discordance} was given.")
    if not -1 < margin < 1:
        raise ValueError(f"margin must lie between -1 and 1; {margin} was given.")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1; {value} was given.")
