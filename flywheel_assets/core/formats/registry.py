"""The registry: which formats there are, those of this package and those other packages bring.

What belongs here: the table, and loading the entry-point group `flywheel_assets.formats`: objects, or classes without
arguments, with what `Format` says. What does not: any one format.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from flywheel_assets.core.formats.base import Format
from flywheel_assets.core.formats.hermes import HermesFormat
from flywheel_assets.core.formats.langfuse import LangfuseExport
from flywheel_assets.core.formats.log import LogFormat
from flywheel_assets.core.formats.openai import OpenAIFormat
from flywheel_assets.core.formats.prompt_completion import PromptCompletionFormat
from flywheel_assets.core.formats.sharegpt import ShareGPTFormat
from flywheel_assets.core.formats.workflow_tracer import WorkflowTracerFormat
from flywheel_assets.core.formats.xlam import XlamFormat

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "flywheel_assets.formats"
AUTO = "auto"
LOG = LogFormat()

# A new format of this package: its module beside the others, and its line here.
BUILT_IN: tuple[Format, ...] = (
    LOG,
    OpenAIFormat(),
    ShareGPTFormat(),
    HermesFormat(),
    XlamFormat(),
    PromptCompletionFormat(),
    WorkflowTracerFormat(),
    LangfuseExport(),
)


class UnknownFormat(ValueError):
    """No format of that name, or one that another package brings cannot be used; the message says what now."""


def formats() -> Mapping[str, Format]:
    """All formats by name: those of this package, then installed ones by name. Raises UnknownFormat for a broken one."""
    return {one.name: one for one in (*BUILT_IN, *_installed())}


def format_named(name: str) -> Format:
    """The format of that name. Installed ones are loaded only where it is none of this package. Raises UnknownFormat."""
    for one in BUILT_IN:
        if one.name == name:
            return one
    known = formats()
    if name not in known:
        raise UnknownFormat(f"there is no format '{name}'. Known: {', '.join((AUTO, *known))}.")
    return known[name]


@cache
def _installed() -> tuple[Format, ...]:
    # Here, because it takes longer than all the rest of this package and most calls never need it.
    from importlib.metadata import entry_points

    taken = {AUTO, *(one.name for one in BUILT_IN)}
    found = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        one = _load(point)
        if one.name in taken:
            raise UnknownFormat(f"{_who(point)} brings a format named '{one.name}', which exists already. Rename it.")
        taken.add(one.name)
        found.append(one)
    return tuple(found)


def _load(point: EntryPoint) -> Format:
    try:
        loaded = point.load()
        one = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise UnknownFormat(
            f"{_who(point)} cannot be loaded ({type(error).__name__}: {error}). Mend it, or uninstall the package."
        ) from error
    if not isinstance(one, Format) or not isinstance(one.name, str):
        raise UnknownFormat(
            f"{_who(point)} is no format: it needs `name`, `title`, `recognises(value)` and `records(value)`. "
            "Mend it, or uninstall the package."
        )
    return one


def _who(point: EntryPoint) -> str:
    package = f" of package '{point.dist.name}'" if point.dist else ""
    return f"entry point '{point.name}' ({point.value}){package} in group {ENTRY_POINT_GROUP}"
