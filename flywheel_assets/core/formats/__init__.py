"""Formats: other ways in which a chat call was written down, brought into the log schema.

What belongs here: pure conversions from one value read from JSON to records. What does not: reading files, and judging the
records (`core.records` does, afterwards).
"""

from flywheel_assets.core.formats.base import Format, FormatError

__all__ = ["Format", "FormatError"]
