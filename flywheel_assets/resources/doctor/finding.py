"""Findings: one thing that was looked at, and how it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flywheel_assets.core.rows import Json


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is the next step where it is not ok."""

    what: str
    ok: bool
    found: str
    advice: str = ""

    def to_json(self) -> Json:
        """A JSON-ready form."""
        return asdict(self)
