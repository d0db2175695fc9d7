"""The line a benchmark prints."""

from __future__ import annotations

from typing import Literal

from benchmarks.machine import machine


def figure(
    bench: str,
    value: float,
    unit: str,
    better: Literal["higher", "lower"],
    target: float,
    *,
    ok: bool | None = None,
    peer: object = None,
) -> dict[str, object]:
    """One figure against its target, with the machine it was measured on.

    Met at the target itself, unless `ok` says otherwise. `peer` is what the obvious other way reached in the same run.
    """
    met = value >= target if better == "higher" else value <= target
    return {
        "bench": bench,
        "value": value,
        "unit": unit,
        "better": better,
        "target": target,
        "ok": met if ok is None else ok,
        "peer": peer,
        "machine": machine(),
    }
