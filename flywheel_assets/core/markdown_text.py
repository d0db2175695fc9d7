"""Text inside Markdown: whatever came from traffic, from a model or from an endpoint is words on a page, and nothing else.

Dagster's UI, hubs and mail clients render Markdown: an image in it is fetched by the reader's browser, and tells whoever put
it there that, when and from where the page was read. Every page goes through the functions here.
"""

from __future__ import annotations

# What begins a picture, a link, a definition of one, HTML or an address that becomes a link by itself.
_LIVE = (
    ("\\", "\\\\"),
    ("![", "!\\["),
    ("](", "\\]("),
    ("]:", "\\]:"),
    ("][", "\\]["),
    ("<", "\\<"),
    ("://", ":\\//"),
    ("www.", "www\\."),
)
_OPENS_A_BLOCK = frozenset("#+-=>")


def harmless(text: object) -> str:
    """Text as one line of Markdown: read as it is, nothing in it is fetched, linked, or taken for HTML or a heading."""
    flat = _printable(text)
    for live, dead in _LIVE:
        flat = flat.replace(live, dead)
    return f"\\{flat}" if flat[:1] in _OPENS_A_BLOCK else flat


def harmless_cell(text: object) -> str:
    """`harmless` for a cell of a table."""
    return harmless(text).replace("|", "\\|")


def harmless_code(text: object) -> str:
    """Text for between two backticks, where nothing but a backtick counts."""
    return _printable(text).replace("`", "'")


def _printable(text: object) -> str:
    """On one line, with a mark in place of what no page shows: ESC colours a terminal, U+202E turns its text around."""
    flat = " ".join(str(text).split())
    return flat if flat.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in flat)
