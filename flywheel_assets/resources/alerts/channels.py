"""Channels: a webhook and a mail server. Each sends one alert, or says in one sentence why not, and never shows a secret.

The URL of a webhook is a secret: whoever has it can write into the room. So what goes wrong is told by kind and number only;
the texts of httpx and smtplib quote URLs, users and whatever a server answered.
"""

from __future__ import annotations

import logging
import os
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Protocol

import httpx

from flywheel_assets.core.alerts import Alert, chat_message, mail_text
from flywheel_assets.settings.alerts import AlertSettings, EmailSettings

# Seconds for one answer of a server. A mail is some eight questions, and a tick has 60 s for all it does.
_ANSWER_S = 5.0


class Undelivered(Exception):
    """An alert did not get through; the message says why, without a secret. It is tried again."""


class Channel(Protocol):
    """One way to people. `name` is written beside an alert once it went this way."""

    @property
    def name(self) -> str:
        """The word for it."""
        ...

    def send(self, alert: Alert) -> None:
        """Deliver one alert; raises `Undelivered`."""
        ...


def channels_of(settings: AlertSettings) -> list[Channel]:
    """The configured channels."""
    found: list[Channel] = []
    if settings.webhook_env is not None:
        found.append(Webhook(settings.webhook_env))
    if settings.email is not None:
        found.append(Mail(settings.email))
    return found


@dataclass(frozen=True, slots=True)
class Webhook:
    """A Slack-compatible webhook: one POST with `{"text": ...}`."""

    url_env: str
    name: str = "webhook"

    def send(self, alert: Alert) -> None:
        """Post one alert. A redirect is not followed: it would carry the alert to somebody nobody named."""
        url = _secret(self.url_env)
        if not url.startswith(("https://", "http://")):
            raise Undelivered(f"webhook: {self.url_env} holds no URL")
        timeout = httpx.Timeout(_ANSWER_S)
        try:
            # The body of the answer is not read: nothing in it matters, and it may have no end.
            with _unlogged(url), httpx.stream("POST", url, json=chat_message(alert), timeout=timeout) as answer:
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise Undelivered(f"webhook: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise Undelivered(f"webhook: answered {status}")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server."""

    settings: EmailSettings
    name: str = "email"

    def send(self, alert: Alert) -> None:
        """Send one mail to all addresses; a server that refuses one of them has taken it for the others."""
        ours = self.settings
        password = _secret(ours.password_env) if ours.password_env is not None else None
        user = _secret(ours.user_env) if ours.user_env is not None else ours.sender
        message = _mail(alert, ours)
        try:
            with self._connected() as server:
                if ours.starttls and not ours.tls_from_the_start:
                    server.starttls(context=ssl.create_default_context())
                if password is not None:
                    server.login(user, password)
                server.send_message(message, ours.sender, list(ours.to))
        except smtplib.SMTPResponseException as error:
            raise Undelivered(f"email: {ours.host} answered {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise Undelivered(f"email: {type(error).__name__} with {ours.host}") from None

    def _connected(self) -> smtplib.SMTP:
        ours = self.settings
        if ours.tls_from_the_start:
            return smtplib.SMTP_SSL(ours.host, ours.port, timeout=_ANSWER_S, context=ssl.create_default_context())
        return smtplib.SMTP(ours.host, ours.port, timeout=_ANSWER_S)


def _mail(alert: Alert, ours: EmailSettings) -> EmailMessage:
    subject, body = mail_text(alert)
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["From"] = ours.sender
    message["To"] = ", ".join(ours.to)
    # Named here, or smtplib asks for the name of this machine and tells it to everybody.
    message["Message-ID"] = make_msgid(domain=ours.sender.partition("@")[2])
    message.set_content(body)
    return message


def _secret(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise Undelivered(f"the environment variable {name} is not set")
    return value


@contextmanager
def _unlogged(url: str) -> Iterator[None]:
    """httpx logs the URL of each request; this one is a secret, whatever a program around us has done to logging."""

    def without_the_url(record: logging.LogRecord) -> bool:
        return url not in record.getMessage()

    loggers = [logging.getLogger("httpx"), logging.getLogger("httpcore")]
    for logger in loggers:
        logger.addFilter(without_the_url)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(without_the_url)
