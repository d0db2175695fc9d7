"""Amounts: money and time as people write them.

What belongs here: figures with a unit. Scores are shares of 1 and are shown as they stand in flywheel.yaml.
"""

from __future__ import annotations

import math


def usd(value: float) -> str:
    """USD with three digits that count: $0.0347, $2.85, $1,240."""
    if value >= 100:
        return f"${value:,.0f}"
    if value >= 1 or value <= 0:
        return f"${value:,.2f}"
    digits = 2 - math.floor(math.log10(value))
    return f"${value:.{digits}f}"


def milliseconds(value: float) -> str:
    """Whole milliseconds."""
    return f"{value:,.0f} ms"
