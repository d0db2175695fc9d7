"""The keys of `alerts`: who is told what, and where. Addresses here; what opens them is in environment variables."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from flywheel_assets.settings.section import Section

_TLS_PORT = 465
_OWN_MACHINE = ("localhost", "127.0.0.1", "::1")


class AlertKind(StrEnum):
    """What is worth an alert."""

    RUN_FAILURE = "run_failure"
    DECISION_CHANGE = "decision_change"
    DRIFT = "drift"


class EmailSettings(Section):
    """A mail server, and who gets mail through it."""

    host: str = Field(min_length=1, description="The mail server (SMTP).")
    port: int = Field(587, ge=1, le=65535, description="Its port; 465 speaks TLS from the first byte.")
    sender: str = Field(alias="from", description="The address mail comes from.")
    to: tuple[str, ...] = Field(min_length=1, description="The addresses it goes to.")
    user_env: str | None = Field(
        None, description="NAME of the environment variable that holds the user; null: the `from` address."
    )
    password_env: str | None = Field(
        None, description="NAME of the environment variable that holds the password; null: the server asks for none."
    )
    starttls: bool = Field(True, description="Switch to TLS before anything is said; not on port 465.")

    @property
    def tls_from_the_start(self) -> bool:
        """Whether the port is the one where nothing is said in the clear."""
        return self.port == _TLS_PORT

    @model_validator(mode="after")
    def _addresses(self) -> EmailSettings:
        for key, address in (("from", self.sender), *(("to", address) for address in self.to)):
            # A line feed would become a header of its own.
            if address.count("@") != 1 or any(letter.isspace() or letter in "<>," for letter in address):
                raise ValueError(f"{key}: {address!r} is no address; write name@host, one an entry")
        return self

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> EmailSettings:
        clear = not self.starttls and not self.tls_from_the_start and self.host not in _OWN_MACHINE
        if self.password_env is not None and clear:
            raise ValueError(f"password_env: the password would reach {self.host} in the clear; leave starttls on")
        return self


class AlertSettings(Section):
    """Messages to people, by webhook or e-mail or both. Neither: nobody is told anything (docs/alerts.md)."""

    webhook_env: str | None = Field(
        None, description="NAME of the environment variable that holds the URL of a Slack-compatible webhook."
    )
    email: EmailSettings | None = Field(None, description="Keys of `alerts.email`; null: no mail.")
    on: tuple[AlertKind, ...] = Field(tuple(AlertKind), min_length=1, description="What is told.")
    ui_url: str | None = Field(
        None, pattern="^https?://", description="Where people open Dagster, for links; null: runs are named by their id."
    )

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, content: Any) -> Any:
        """YAML takes an unquoted `on` for true, also where it is a key."""
        if not isinstance(content, dict) or True not in content:
            return content
        return {("on" if key is True else key): value for key, value in content.items()}

    @property
    def is_configured(self) -> bool:
        """Whether anybody is told anything."""
        return self.webhook_env is not None or self.email is not None
