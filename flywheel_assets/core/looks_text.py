"""What a decision says about looks: the one it is, the one to come, and what earlier ones judged by.

What belongs here: sentences. What does not: which look is due and what it may spend (`core.looks`).
"""

from __future__ import annotations

from collections.abc import Sequence

from flywheel_assets.core.gates import Gate
from flywheel_assets.core.looks import Due, Look, Waiting, spent


def upcoming_look(
    workload: str, rows: int, waiting: Waiting, unfinished: Sequence[str], alpha: float, earlier: Sequence[Look]
) -> str:
    """What a person does so that a look is taken."""
    command = f"flywheel looks {workload}"
    if unfinished:
        return (
            f"No look is taken before every variant has ended, and {', '.join(unfinished)} is still to be evaluated. "
            f"Run `flywheel run {workload}`."
        )
    if waiting.next_rows is not None:
        return f"The next look is registered at {waiting.next_rows} eval rows, and there are {rows}."
    return (
        f"Nothing is left of alpha {alpha:g}: the looks taken so far spent {spent(earlier):.3g} (`{command}` lists them). "
        f'To look again, start over: `{command} --start-over --why "..."` (decision.looks registers other row counts). '
        "Every later decision will say so."
    )


def on_looks(
    workload: str,
    look: Due | Waiting,
    registered: Sequence[int],
    alpha: float,
    earlier: Sequence[Look],
    *,
    promoted: bool,
    settled: bool,
) -> list[str]:
    """What a reader must know about looking repeatedly."""
    if isinstance(look, Waiting):
        return []
    if registered:
        elsewhere = spent([other for other in earlier if other.schedule != (tuple(registered), alpha)])
        before = f", of which looks that were registered otherwise had spent {elsewhere:.3g}" if elsewhere else ""
        said = (
            f"This is look {look.number} of {len(registered)} registered ones; it spends {look.alpha:.3g} of alpha{before}."
        )
        if look.number < len(registered) or settled:
            return [said]
        return [
            f"{said} It was the last one, so alpha is spent. With more rows, another model or another eval size, start over "
            f'to look again: `flywheel looks {workload} --start-over --why "..."`.'
        ]
    if look.alpha < alpha:
        return [f"This decision spends {look.alpha:.3g} of alpha: what the looks that were registered before it have left."]
    if look.number > 1 and promoted:
        return [
            f"This is decision {look.number} on this workload, each taken at the full alpha: over many of them a model that "
            "is not good enough passes more often than alpha says. Register row counts in decision.looks to prevent that."
        ]
    return []


def on_other_gates(gates: Sequence[Gate], earlier: Sequence[Look], version: str) -> list[str]:
    """That these very rows were judged by other gates before: whoever changes a gate then has seen the scores."""
    before = [look for look in earlier if look.comparison == version and look.gates not in (None, tuple(gates))]
    if not before:
        return []
    return [
        f"These rows were judged by other gates before (the verdict was {before[-1].verdict}): gates that are changed once "
        "the scores were seen prove less."
    ]
