"""HTML: the report as one file that asks nobody for anything.

What belongs here: rendering, and making any text safe to show. Every text of a model, a record or a setting passes through
Jinja's escaping; nothing is ever marked as safe. What is shown is decided in `view`, how it looks in the templates.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flywheel_assets.core.report.amounts import usd
from flywheel_assets.core.report.scatter import HEIGHT, WIDTH, Scatter
from flywheel_assets.core.report.view import Report

# A text longer than this tells nobody more; a thousand rows of it would make a file that no browser opens.
_LONGEST = 1200


def to_html(report: Report) -> str:
    """The whole page. It holds no script and no address, and its policy forbids the browser to fetch anything."""
    return _safe(_environment().get_template("report.html.jinja").render(report=report))


def to_svg(picture: Scatter) -> str:
    """One picture as an image of its own, on white ground, for where no page surrounds it."""
    return _safe(_environment().get_template("picture.svg.jinja").render(picture=picture))


def _safe(text: str) -> str:
    # A model can write half a surrogate pair, which no file can hold.
    return text.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": _short, "score": _score, "p_value": _p_value, "usd": usd}
    environment.globals |= {"width": WIDTH, "height": HEIGHT}
    return environment


def _short(text: object, longest: int = _LONGEST) -> str:
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[:longest]} … ({len(whole):,} characters in all)"


def _score(value: float) -> str:
    return f"{value:.3f}"


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
