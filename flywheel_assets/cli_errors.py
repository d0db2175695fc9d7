"""Errors of the command line: which of them are a message to a person instead of a traceback, and what that says."""

from __future__ import annotations

import sqlite3


class UserError(Exception):
    """Something a person must mend; the message says what and how. Exit code 2."""


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is the whole story: shown without a traceback."""
    from flywheel_assets.core.looks import StartOverRefused
    from flywheel_assets.core.promotion import PromotionRefused
    from flywheel_assets.demo.fetch import DemoError
    from flywheel_assets.resources.artifacts import AlreadyBeingMade, ArtifactMissing
    from flywheel_assets.resources.ingest import IngestError
    from flywheel_assets.resources.json_files import Damaged
    from flywheel_assets.resources.judge.choice import JudgeError
    from flywheel_assets.resources.leases import LeaseError
    from flywheel_assets.resources.postgres.url import PostgresError
    from flywheel_assets.resources.prediction_cache import CacheError
    from flywheel_assets.resources.seals import Tampered
    from flywheel_assets.resources.serving import ServingError
    from flywheel_assets.resources.sources import SourceError
    from flywheel_assets.resources.trace_stores import TraceStoreError
    from flywheel_assets.settings import SettingsError

    return (
        UserError,
        SettingsError,
        AlreadyBeingMade,
        ArtifactMissing,
        CacheError,
        Damaged,
        DemoError,
        IngestError,
        JudgeError,
        LeaseError,
        PostgresError,
        PromotionRefused,
        ServingError,
        SourceError,
        StartOverRefused,
        Tampered,
        TraceStoreError,
        OSError,
        sqlite3.Error,
    )


def said(error: Exception) -> str:
    """What an expected error says. Those of the system know what failed and where, but not what now."""
    if isinstance(error, OSError):
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = f": {' -> '.join(named)}" if named else ""
        return (
            f"{error.strerror or error}{where}. Check that the path is right and may be written, and that the disk has room."
        )
    if isinstance(error, sqlite3.Error):
        return f"SQLite: {error}. Check that FLYWHEEL_HOME may be written, its files are whole and the disk has room."
    return str(error)
