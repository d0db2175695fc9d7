"""What is cleaned out of records, and what is not: the policies, as plain data.

What belongs here: the kinds of values that are replaced, and the frozen policies that travel from the settings to worker
processes. What does not: how anything is found (`secrets`, `personal`), or flywheel.yaml itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from flywheel_assets.core.patterns import Pattern, literally, pattern


class Entity(StrEnum):
    """A kind of value that is replaced; its name in upper case is what stands in the placeholder (`<EMAIL_1>`)."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    SSN = "ssn"
    IP = "ip"
    MAC = "mac"
    API_KEY = "api_key"
    JWT = "jwt"
    TOKEN = "token"
    PASSWORD = "password"
    SECRET = "secret"
    PRIVATE_KEY = "private_key"


@dataclass(frozen=True, slots=True)
class CleaningPolicy:
    """How records are cleaned while they are read.

    `allow` holds values that are left alone: literal text (compared without case), or a regular expression between
    slashes that must match the whole value. `similarity` in (0, 1) is the Jaccard similarity from which two
    conversations count as near-duplicates.
    """

    scrub: bool = True
    allow: tuple[str, ...] = ()
    entities: frozenset[Entity] = frozenset(Entity)
    near_duplicates: bool = True
    similarity: float = 0.9


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """Which records are kept out of every dataset for what they are. `min_feedback` is a bound on `feedback.score`."""

    drop_truncated: bool = False
    drop_refusals: bool = False
    min_feedback: float | None = None


def allow_pattern(allow: tuple[str, ...]) -> Pattern | None:
    """The one expression that matches exactly the values `allow` leaves alone; ValueError on a broken expression."""
    parts = []
    for entry in allow:
        if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
            pattern(entry[1:-1])
            parts.append(f"(?:{entry[1:-1]})")
        else:
            parts.append(literally(entry))
    return pattern("|".join(parts)) if parts else None
