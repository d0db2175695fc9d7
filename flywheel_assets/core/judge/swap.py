"""Position swap: two answers are compared twice, each once in the first place, because judges favour a place."""

from __future__ import annotations

from dataclasses import dataclass

from flywheel_assets.core.judge.verdicts import Winner

_IN_THE_SECOND_ORDER = {Winner.A: Winner.B, Winner.B: Winner.A, Winner.TIE: Winner.TIE}


@dataclass(frozen=True, slots=True)
class Resolved:
    """What two comparisons say together: 1 the answer wins both, 0 the reference does, 0.5 neither; None: no verdict."""

    score: float | None
    consistent: bool = True


def resolve(answer_first: Winner | None, reference_first: Winner | None) -> Resolved:
    """Both verdicts together: as the answer stood first (`A`), and as the reference did. Only a win in both counts."""
    if answer_first is None or reference_first is None:
        return Resolved(None)
    if answer_first is not _IN_THE_SECOND_ORDER[reference_first]:
        return Resolved(0.5, consistent=False)
    return Resolved({Winner.A: 1.0, Winner.B: 0.0, Winner.TIE: 0.5}[answer_first])
