"""The machine, its packages, and where records come from."""

from __future__ import annotations

import importlib.metadata
import shutil
import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec

from flywheel_assets import __version__, system
from flywheel_assets.resources.doctor.finding import Finding
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.nemo.health import examine_cluster
from flywheel_assets.resources.sources import CheckedSource, SourceError, enabled_sources
from flywheel_assets.settings import Engine, Settings

_TRAINING_PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo")
_SERVING_PACKAGES = ("xllamacpp",)
_BASE_PACKAGES = ("dagster", "openai", "pyarrow")


def machine(settings: Settings) -> Iterator[Finding]:
    """Whether this machine is one that is supported, with room on its disk; which settings hold."""
    # What is installed already needs no room for its installation; free disk is a finding of its own.
    faults = system.faults(needed_gb=0)
    yield Finding("machine", not faults, "; ".join(faults) or f"supported: {system.SUPPORTED}")
    free = shutil.disk_usage(settings.root).free / 1e9
    yield Finding("disk", free > 2, f"{free:.0f} GB free", "" if free > 2 else "free some space: adapters need room")
    yield Finding("settings", True, f"{settings.root / 'flywheel.yaml'}, home {settings.home}, version {__version__}")


def packages(settings: Settings) -> Iterator[Finding]:
    """What is installed for what the candidates need."""
    yield Finding("base packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _BASE_PACKAGES))
    local = [candidate for candidate in settings.candidates if candidate.engine is Engine.XLLAMACPP]
    if local:
        yield _installed("serving", _SERVING_PACKAGES)
    if any(candidate.trainable for candidate in local):
        yield _installed("training", _TRAINING_PACKAGES)


def _installed(what: str, packages: tuple[str, ...]) -> Finding:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        return Finding(f"{what} packages", False, f"not installed: {', '.join(missing)}", "run `make setup`")
    return Finding(f"{what} packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))


def stores(settings: Settings) -> Iterator[Finding]:
    """The trace store, and how much lies in it."""
    if settings.trace_store == "elasticsearch":
        # Imported here: whoever keeps traces in a file needs none of it.
        from flywheel_assets.resources.trace_stores.elasticsearch.health import examine_server

        health = examine_server(settings.elasticsearch)
        yield Finding("trace store", health.ok, health.found, health.advice)
        return
    try:
        summaries = Flywheel.at_home(settings).traces.workloads()
    except sqlite3.DatabaseError as error:
        yield Finding("trace store", False, str(error), f"move {settings.home / 'traces.sqlite'} aside and ingest again")
        return
    records = sum(summary.count for summary in summaries)
    advice = "" if summaries else "`flywheel ingest FILE`, or `make demo`"
    yield Finding("trace store", True, f"{records:,} records of {len(summaries)} workloads", advice)


def sources(settings: Settings) -> Iterator[Finding]:
    """Every source of records that is switched on."""
    try:
        sources = enabled_sources(settings)
    except SourceError as error:
        yield Finding("sources", False, str(error))
        return
    for source in sources:
        if isinstance(source, CheckedSource):
            status = source.check()
            yield Finding(f"source {source.name}", status.ok, status.found, status.advice)
        else:
            yield Finding(f"source {source.name}", True, "switched on; it has no check of its own")


def cluster(settings: Settings) -> Iterator[Finding]:
    """The NeMo cluster, where the platform is one."""
    if settings.platform == "nemo":
        yield from (Finding(one.what, one.ok, one.found, one.advice) for one in examine_cluster(settings))
