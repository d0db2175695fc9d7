"""A metric outside flywheel_assets: does a written answer name the numbers of the reference, and no others."""

from __future__ import annotations

import re

from flywheel_assets.core.rows import Answer, EvalRow

_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")


class SameNumbers:
    """The column `same_numbers` of text workloads."""

    name = "same_numbers"
    applies_to = ("generic",)
    definition = "1 if the answer names the same numbers as the reference, in any order; null where the reference has none."

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        """0 or 1. Whether it applies depends on the reference alone; an answer without numbers is wrong."""
        expected = _numbers(row.reference)
        return float(_numbers(answer) == expected) if expected else None


def _numbers(answer: Answer) -> list[str]:
    return sorted(_NUMBERS.findall(answer.content or ""))
