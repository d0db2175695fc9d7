"""Writes docs/settings.md from the pydantic models of `flywheel_assets.settings`: `python docs/generate_settings.py`.

What belongs here: the shape of that page. What does not: a word about any key; those stand beside the key in the model.
`tests/test_settings_reference.py` fails while the page and the models differ.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from flywheel_assets.settings import Candidate, Gate, Settings, WorkloadSettings
from flywheel_assets.settings.alerts import EmailSettings
from flywheel_assets.settings.nemo import CustomizerConfig, NemoJudge, Nim
from flywheel_assets.settings.prices import Price
from flywheel_assets.settings.schema import SLUG_PATTERN

PAGE = Path(__file__).with_name("settings.md")

OPENING = """# Settings

<!-- Written by docs/generate_settings.py from flywheel_assets/settings/schema.py. Change the descriptions there. -->

`flywheel.yaml` says what is examined and by which rules. It is looked for in the working folder and above it;
`FLYWHEEL_CONFIG` names another one. An unknown key is an error that lists the accepted ones. Secrets never stand in it: a
key such as `api_key_env` holds the *name* of an environment variable, and `.env` beside the file is read
(`.env.example` lists the variables).

A path may be absolute, relative to the file, or begin with `$FLYWHEEL_HOME`. A slug is lower-case letters, digits and
single `.`, `_` or `-` between them, 63 characters at most.
"""

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
_NAMES: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def page() -> str:
    """The whole page."""
    top = [name for name, field in Settings.model_fields.items() if not field.exclude and _section(field) is None]
    blocks = {name: section for name, field in Settings.model_fields.items() if (section := _section(field)) is not None}
    parts = [OPENING, "## Top level\n", _table(Settings, only=top)]
    parts += ["## `candidates:` (a list)\n", _about(Candidate), _table(Candidate)]
    for name, section in blocks.items():
        inner = _nested(section)
        own = [key for key in section.model_fields if key not in inner]
        parts += [f"## `{name}:`\n", _about(section), _table(section, only=own)]
        for key, found in inner.items():
            parts += [f"### `{name}.{key}:`\n", _about(found), _table(found)]
        if name == "alerts":
            parts += ["### `alerts.email:`\n", _about(EmailSettings), _table(EmailSettings)]
        if name == "decision":
            parts += ["### `decision.gates:` (a list)\n", _about(Gate), _table(Gate)]
        if name == "nemo":
            parts += ["### `nemo.judge:`\n", _about(NemoJudge), _table(NemoJudge)]
            parts += ["## `nims:` (a list)\n", _about(Nim), _table(Nim)]
            parts += ["### `nims[].customizer_configs:`\n", _about(CustomizerConfig), _table(CustomizerConfig)]
    parts += ["## `prices.<name>:`\n", _about(Price), _table(Price)]
    parts += ["## `workloads.<slug>:`\n", _about(WorkloadSettings), _table(WorkloadSettings)]
    return "\n".join(parts)


def every_key() -> Iterator[tuple[str, FieldInfo]]:
    """Every key a user may set, as `Model.key`."""
    sections = list(_nested(Settings).values())
    sections += [nested for section in sections for nested in _nested(section).values()]
    lists = (EmailSettings, NemoJudge, Nim, CustomizerConfig, Gate, Price, WorkloadSettings)
    for model in (Settings, Candidate, *sections, *lists):
        for name, field in model.model_fields.items():
            if not field.exclude and _section(field) is None:
                yield f"{model.__name__}.{name}", field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _nested(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The sections within a section, by their key."""
    return {name: section for name, field in model.model_fields.items() if (section := _section(field)) is not None}


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split()) + "\n"


def _table(model: type[BaseModel], only: list[str] | None = None) -> str:
    lines = ["| key | default | accepted | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if only is None or name in only:
            cells = (f"`{field.alias or name}`", _default(field), _accepted(field), field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(str(item) for item in value)}]`"
    return f"`{value}`"


def _accepted(field: FieldInfo) -> str:
    patterns = [item.pattern for item in field.metadata if isinstance(getattr(item, "pattern", None), str)]
    kind = "slug" if SLUG_PATTERN in patterns else "URL" if any("https?://" in pattern for pattern in patterns) else None
    if kind is not None:
        return f"{kind} or `null`" if types.NoneType in get_args(field.annotation) else kind
    bounds = [f"{_BOUNDS[name]} {value}" for item in field.metadata for name, value in _limits(item)]
    return ", ".join([_kind(field.annotation), *bounds])


def _limits(item: Any) -> Iterator[tuple[str, Any]]:
    for name in _BOUNDS:
        if (value := getattr(item, name, None)) is not None:
            yield name, value


def _kind(annotation: Any) -> str:
    """A type in words a person who writes YAML uses."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        slug = any(isinstance(item, StringConstraints) for item in arguments[1:])
        return "slug" if slug else _kind(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if kind is types.NoneType else _kind(kind) for kind in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__.lower()
    return _NAMES.get(annotation, str(annotation))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
