"""Every spelling of a PostgreSQL URL opens; what is none is refused without being repeated."""

from __future__ import annotations

import pytest

from flywheel_assets.resources.postgres.url import PostgresError, with_driver


@pytest.mark.parametrize(
    "given",
    [
        "postgres://u:p%40@h:5/d?sslmode=require",
        "postgresql://u:p%40@h:5/d?sslmode=require",
        " postgresql+psycopg2://u:p%40@h:5/d?sslmode=require\n",
    ],
)
def test_a_url_without_a_driver_gets_the_one_that_is_installed(given: str) -> None:
    assert with_driver(given) == "postgresql+psycopg2://u:p%40@h:5/d?sslmode=require"


def test_a_driver_that_was_chosen_stays() -> None:
    assert with_driver("postgresql+psycopg://u@h/d") == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    "given", ["hunter2", "mysql://u:hunter2@h/d", "u:hunter2@h/d", "hunter2://h/d", "https://u:hunter2@h"]
)
def test_what_is_no_such_url_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(PostgresError, match="FLYWHEEL_POSTGRES_URL") as refused:
        with_driver(given)
    assert "hunter2" not in str(refused.value)
