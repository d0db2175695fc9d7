"""Credentials: whether a key can be sent at all. Here, because a client that finds out later shows the key in its error."""

from __future__ import annotations


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
