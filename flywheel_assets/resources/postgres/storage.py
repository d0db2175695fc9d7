"""Dagster's PostgreSQL storage for any spelling of the URL; `deploy/postgres/dagster.yaml` names this class.

Everything else is dagster-postgres. Here rather than in the command that starts a server: `dagster dev` with
DAGSTER_HOME=deploy/postgres reads the URL itself, and a `postgresql://` in it must not end in a missing module.
"""

from __future__ import annotations

from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import DagsterPostgresException, pg_url_from_config

from flywheel_assets.resources.postgres.url import URL_ENV, PostgresError, with_driver


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in PostgreSQL."""

    @classmethod
    def from_config_value(  # type: ignore[override]  # as in dagster-postgres: its class is narrower than Dagster's
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> PostgresStorage:
        """The storage of a dagster.yaml. Raises `PostgresError` for what is no PostgreSQL URL."""
        if "postgres_url" in config_value and not config_value["postgres_url"]:
            raise PostgresError(
                f"{URL_ENV} is empty: name a server in it, or run the command through one of your own "
                "(python -m flywheel_assets.postgres -- COMMAND)"
            )
        try:
            return cls(
                postgres_url=with_driver(pg_url_from_config(config_value)),
                should_autocreate_tables=bool(config_value.get("should_autocreate_tables", True)),
                inst_data=inst_data,
            )
        except DagsterPostgresException as error:
            # The driver's own words name host and port, never the password.
            raise PostgresError(f"the PostgreSQL server of {URL_ENV} does not let us in: {_reason(error)}") from None


def _reason(error: DagsterPostgresException) -> str:
    original = getattr(error.__cause__, "orig", None)
    return " ".join(str(original or error).split())
