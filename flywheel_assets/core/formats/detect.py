"""Detection: which format the first rows of a file are in.

What belongs here: the choice. What does not: getting at the rows (`resources.ingest`), and what a format's rows look like
(each format's `recognises`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from flywheel_assets.core.formats.base import Format, FormatBroken
from flywheel_assets.core.formats.registry import LOG
from flywheel_assets.core.rows import Json

# Looked at of each file.
DETECTION_ROWS = 100


class Undetected(ValueError):
    """The rows are in no known format, or could be in several; the message says which to name."""


def detect(rows: Sequence[Json], known: Mapping[str, Format]) -> Format:
    """The format that recognises rows among these, if it is the only one; the log schema where there are none at all.

    Rows that no format recognises but that have names of the log schema count as the log schema. Raises Undetected,
    and FormatBroken where a format cannot be asked.
    """
    votes = Counter(one.name for row in rows for one in known.values() if _recognises(one, row))
    if len(votes) == 1:
        return known[next(iter(votes))]
    if votes:
        claims = " and ".join(f"{name} ({count} of {len(rows)} rows)" for name, count in votes.most_common())
        choices = " or ".join(f"--format {name}" for name, _ in votes.most_common())
        raise Undetected(f"could be {claims}. Say which: {choices}.")
    if not rows or any(LOG.resembles(row) for row in rows):
        return LOG
    names = ", ".join(sorted(rows[0])[:8]) or "none"
    raise Undetected(
        f"is in no known format (its first row has the fields: {names}). Known: {', '.join(known)}; docs/data.md shows a "
        "row of each. Name one with --format to see why its rows are refused."
    )


def _recognises(form: Format, row: Json) -> bool:
    try:
        return form.recognises(row)
    except Exception as error:
        raise FormatBroken(
            f"format '{form.name}' failed to look at a row ({type(error).__name__}: {error}). Mend it, uninstall its "
            "package, or name the format with --format."
        ) from error
