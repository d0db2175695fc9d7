"""The base of every block of flywheel.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

AUTO = "auto"


class Section(BaseModel):
    """A block of flywheel.yaml: unknown keys are errors (a typo must not silently mean the default)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def auto_or_a_number(value: Any) -> Any:
    """`auto`, or a whole number of 1 or more. One message: of a union, pydantic would tell two."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if value == AUTO or (type(number) is int and number >= 1):
        return number
    raise PydanticCustomError("auto_or_a_number", "Input should be auto or a whole number of 1 or more")
