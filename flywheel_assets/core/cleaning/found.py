"""What a detector says: where in a text a value stands, and what kind of value it is.

What belongs here: this type, and the few forms that look like a value and are none. What does not: any detector.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from flywheel_assets.core.cleaning.policy import Entity

PLACEHOLDER = re.compile(r"<({})_(\d{{1,9}})>".format("|".join(entity.name for entity in Entity)))


class Found(NamedTuple):
    """A value in a text: `text[start:end]`. `key` is the form two spellings of one value share."""

    start: int
    end: int
    entity: Entity
    key: str


def digits_of(text: str) -> str:
    """The ASCII digits of a text."""
    return "".join([character for character in text if "0" <= character <= "9"])
