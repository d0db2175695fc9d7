"""Patterns: regular expressions that people write into flywheel.yaml, matched in linear time.

Python's own engine needs exponential time for patterns like `(a+)+$`, and what they meet comes from traffic: one odd record
would hold up a workload for ever. RE2 cannot: it knows no look-around and no back-references. Our own expressions stay with
`re`: whoever writes one sees to it that it takes no time on any text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import re2

# A pattern that unrolls to more than this (bytes) is refused: `(x{1,900}){1,900}` must not take all memory either.
_MAX_MEMORY = 8 << 20


class Pattern(Protocol):
    """What is used of a compiled expression."""

    def search(self, text: str, /) -> Any:
        """The first match anywhere, or None."""
        ...

    def fullmatch(self, text: str, /) -> Any:
        """A match of the whole text, or None."""
        ...


@lru_cache(maxsize=256)
def pattern(text: str) -> Pattern:
    """A regular expression that matches whatever the case, in time linear in the text; ValueError says what is wrong."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        compiled: Pattern = re2.compile(text, options)
    except re2.error as error:
        raise ValueError(
            f"'{text}' is no regular expression that can be matched in linear time ({_said(error)}). The syntax is RE2's: "
            "no look-around, no back-references"
        ) from None
    return compiled


def literally(text: str) -> str:
    """A pattern that matches exactly this text."""
    escaped: str = re2.escape(text)
    return escaped


def _said(error: Exception) -> str:
    told = error.args[0] if error.args else error
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
