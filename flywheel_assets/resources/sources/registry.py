"""The registry: which sources there are, built in and brought by other packages, and which of them are switched on.

A user's own source is a function `Settings -> TraceSource | None` under the entry-point group `flywheel_assets.sources`;
None means that it is not switched on. Its options stand under `sources.<name>` of flywheel.yaml, or wherever it looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from flywheel_assets.resources.sources.base import SourceError, TraceSource
from flywheel_assets.settings import Settings

ENTRY_POINT_GROUP = "flywheel_assets.sources"

BUILT_IN = (EntryPoint("langfuse", "flywheel_assets.resources.sources.langfuse:langfuse_source", ENTRY_POINT_GROUP),)

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def enabled_sources(settings: Settings) -> tuple[TraceSource, ...]:
    """The sources that are switched on, built-in ones first. Raises SourceError that names the source that is broken.

    Nothing is connected to: that begins with the first pull.
    """
    found: dict[str, TraceSource] = {}
    for point in _entry_points():
        source = _made(point, settings)
        if source is None:
            continue
        if source.name in found:
            raise _broken(point, f"brings a source named '{source.name}', which exists already. Give it a name of its own.")
        found[source.name] = source
    return tuple(found.values())


def chosen_sources(settings: Settings, names: tuple[str, ...]) -> tuple[TraceSource, ...]:
    """The named sources, or all that are switched on. Raises SourceError for a name that is not."""
    sources = {source.name: source for source in enabled_sources(settings)}
    if not sources:
        raise SourceError("no source is switched on. `langfuse: {enabled: true}` in flywheel.yaml does (docs/langfuse.md).")
    for name in names:
        if name not in sources:
            raise SourceError(f"unknown source '{name}'. Switched on in flywheel.yaml: {', '.join(sources)}.")
    return tuple(sources[name] for name in names or sources)


def _entry_points() -> Iterator[EntryPoint]:
    yield from BUILT_IN
    yield from sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)


def _made(point: EntryPoint, settings: Settings) -> TraceSource | None:
    try:
        source = point.load()(settings)
    except SourceError as error:
        raise _broken(point, f"cannot be made: {error}") from error
    except Exception as error:  # a stranger's code may raise anything, and the person must learn whose it is
        raise _broken(point, f"fails with {type(error).__name__}: {error}. Mend it, or uninstall its package.") from error
    if source is None:
        return None
    if not isinstance(source, TraceSource):
        raise _broken(point, "is not a source: it needs `name` and `pull(cursor, *, deadline)` (docs/extending.md).")
    if not isinstance(source.name, str) or _NAME.fullmatch(source.name) is None:
        raise _broken(point, f"has the name {source.name!r}; lower-case letters, digits and `_` are accepted.")
    return source


def _broken(point: EntryPoint, problem: str) -> SourceError:
    return SourceError(f"source '{point.name}' ({point.value}, entry point of {ENTRY_POINT_GROUP}) {problem}")
