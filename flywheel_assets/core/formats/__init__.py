"""Formats: data sets that are not logs, read as records of the log schema. One module a format.

What belongs here: what a row of each published format means, and which format a file is in. What does not: files and
stores (`resources.ingest`), and the log schema itself (`core.records`).
"""

from flywheel_assets.core.formats.base import Format, FormatBroken, FormatError
from flywheel_assets.core.formats.detect import DETECTION_ROWS, Undetected, detect
from flywheel_assets.core.formats.reading import read_line, records_of
from flywheel_assets.core.formats.registry import AUTO, BUILT_IN, LOG, UnknownFormat, format_named, formats

__all__ = [
    "AUTO",
    "BUILT_IN",
    "DETECTION_ROWS",
    "LOG",
    "Format",
    "FormatBroken",
    "FormatError",
    "Undetected",
    "UnknownFormat",
    "detect",
    "format_named",
    "formats",
    "read_line",
    "records_of",
]
