"""The URL of a PostgreSQL server: every spelling that people use, made the one that Dagster's storage can open."""

from __future__ import annotations

URL_ENV = "FLYWHEEL_POSTGRES_URL"

# SQLAlchemy 2.1 takes a URL without a driver to mean psycopg 3; dagster-postgres brings psycopg 2 along, and no other.
_DRIVER = "postgresql+psycopg2"
_WITHOUT_DRIVER = ("postgres", "postgresql")


class PostgresError(Exception):
    """Something about the server a person has to mend. The message says what; it never holds the URL or its password."""


def with_driver(url: str) -> str:
    """The URL with the driver named; one that names a driver already is left as it is. Raises `PostgresError`."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.partition("+")[0] not in _WITHOUT_DRIVER:
        # Not even the scheme is repeated: of a URL that was pasted wrongly, nobody knows which part is the password.
        raise PostgresError(
            f"the PostgreSQL URL ({URL_ENV}) does not begin with postgresql://; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    return f"{_DRIVER if scheme in _WITHOUT_DRIVER else scheme}://{rest}"
