"""Credentials: whether a key can be sent at all, since a client that finds out later shows it, and text without any."""

from __future__ import annotations

import re

_IN_A_URL = re.compile(r"://[^/@\s]+@")


def without_credentials(text: str) -> str:
    """A text without the user and password that URLs in it may hold."""
    return _IN_A_URL.sub("://", text)


def unsendable(name: str, value: str | None) -> str | None:
    """Why the value of the environment variable `name` fits into no HTTP header, and what to do; None where it does.

    Never says anything of the value but the kind of character that is wrong with it.
    """
    if value is None or (value.isascii() and value.isprintable()):
        return None
    if "\n" in value or "\r" in value:
        wrong = "a line feed"
    elif not value.isascii():
        wrong = "a character that is not ASCII"
    else:
        wrong = "a control character"
    return f"the environment variable {name} holds {wrong}, which no key does. Set it again, as one line."
