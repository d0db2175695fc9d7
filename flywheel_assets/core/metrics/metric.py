"""What a metric is: one column of `predictions.parquet`, whoever brings it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flywheel_assets.core.rows import Answer, EvalRow, WorkloadType

Scorer = Callable[[EvalRow, Answer], float | None]


class MetricError(ValueError):
    """A metric cannot be used, or gave something that is no score; the message names the metric and the row."""


@runtime_checkable
class Metric(Protocol):
    """One column of `predictions.parquet`. docs/extending.md shows one of another package."""

    @property
    def name(self) -> str:
        """The column's name: lower-case letters, digits and `_`; no other metric of these workload types has it."""

    @property
    def applies_to(self) -> Collection[WorkloadType]:
        """The workload types it is computed for: `WorkloadType` members, or their values as text."""

    @property
    def definition(self) -> str:
        """What it measures, in a sentence for the person who reads the report."""

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        """0..1, or None where the metric does not apply.

        Whether it applies must depend on `row` alone: an answer that is no good scores 0, it does not leave the mean. It is
        called with an empty answer for a row that errored, to learn that.
        """


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A metric of this package: a name and a function, whose docstring is the definition."""

    name: str
    applies_to: frozenset[WorkloadType]
    function: Scorer

    @property
    def definition(self) -> str:
        """The first paragraph of the function's docstring, on one line."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def score(self, row: EvalRow, answer: Answer) -> float | None:
        """The function's value."""
        return self.function(row, answer)
